"""A team's own fal credential: by variable or by file, in force for its keys alone, and never told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.gateway import DEFAULTS, FAL_KEY
from tests.harness.messages import proxy_request
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.ports import refused_port
from tests.harness.process import GatewayProcess
from tests.harness.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import ScriptedOrigin, StartOrigin

DESIGN: Final = GatewayKey(id="design-web", team="design")
RESEARCH: Final = GatewayKey(id="research-web", team="research")
OTHER: Final = GatewayKey(id="other-web", team="other")
BY_VARIABLE: Final = "design-id:design-secret-21c7"
BY_FILE: Final = "research-id:research-secret-9f04"
LATER: Final = "research-id:research-secret-later-c3"


def policy_of(secret: Path, *keys: GatewayKey, **sections: object) -> str:
    """Return a policy in which `design` names a variable and `research` a file."""
    teams = [
        {"id": "design", "fal_key_env": "FAL_KEY_DESIGN"},
        {"id": "research", "fal_key_file": str(secret)},
        {"id": "other"},
    ]
    return policy_text(DESIGN, RESEARCH, OTHER, *keys, teams=teams, **sections)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return the file with the credential of `research`."""
    file = tmp_path / "research-key"
    file.write_text(f"{BY_FILE}\n", encoding="utf-8")
    return file


@pytest.fixture
def origin(start_origin: StartOrigin) -> ScriptedOrigin:
    """Return an origin that answers 200."""
    return start_origin()


def credential_of(gateway: Gateway, origin: ScriptedOrigin, key: GatewayKey | None) -> str:
    """Send a request and return the credential that the origin saw."""
    with gateway.connect() as client:
        assert client.ask(proxy_request(key=key)).status == 200
    (value,) = origin.requests[-1].head.values(b"authorization")
    scheme, _, credential = value.decode().partition(" ")
    assert scheme == "Key"
    return credential


def test_each_team_pays_with_its_own(start_gateway: StartGateway, origin: ScriptedOrigin, secret: Path) -> None:
    """Keys of a team with a credential go out with it, all others and the anonymous with the gateway's."""
    policy = policy_of(secret, clients={"allow_unauthorized_requests": True})
    gateway = start_gateway(origin, policy=policy, FAL_KEY_DESIGN=BY_VARIABLE)
    found = [credential_of(gateway, origin, key) for key in (DESIGN, RESEARCH, OTHER, None)]
    assert found == [BY_VARIABLE, BY_FILE, FAL_KEY, FAL_KEY]


def test_a_file_is_followed(start_gateway: StartGateway, origin: ScriptedOrigin, secret: Path) -> None:
    """A new credential is in force without a change of the policy; one that is unfit leaves the old in force."""
    gateway = start_gateway(origin, policy=policy_of(secret), FAL_KEY_DESIGN=BY_VARIABLE)
    new = secret.with_suffix(".new")
    new.write_text(LATER, encoding="utf-8")
    new.rename(secret)
    event = gateway.wait_for_event("credential_reloaded")
    assert (event["teams"], event["generation"]) == (["research"], 2)
    until(lambda: credential_of(gateway, origin, RESEARCH) == LATER, "the new credential")
    secret.write_text("two words", encoding="utf-8")
    event = gateway.wait_for_event("credential_reload_failed")
    assert (event["place"], event["level"]) == ("teams[1].fal_key_file", "error")
    assert gateway.metrics().value("policy_reload_errors_total") == 1
    assert credential_of(gateway, origin, RESEARCH) == LATER
    assert gateway.ready()
    text = gateway.process.stderr()
    assert not [word for word in (BY_FILE, LATER, BY_VARIABLE, "two words") if word in text]


def test_a_mounted_secret_is_followed(start_gateway: StartGateway, origin: ScriptedOrigin, tmp_path: Path) -> None:
    """Kubernetes swaps the link above a Secret's files as it does for a ConfigMap."""
    mounted = tmp_path / "mounted"
    for name, text in (("..1", BY_FILE), ("..2", LATER)):
        (mounted / name).mkdir(parents=True)
        (mounted / name / "key").write_text(text, encoding="utf-8")
    (mounted / "..data").symlink_to("..1")
    (mounted / "key").symlink_to("..data/key")
    gateway = start_gateway(origin, policy=policy_of(mounted / "key"), FAL_KEY_DESIGN=BY_VARIABLE)
    assert credential_of(gateway, origin, RESEARCH) == BY_FILE
    (mounted / "..data_tmp").symlink_to("..2")
    (mounted / "..data_tmp").rename(mounted / "..data")
    until(lambda: credential_of(gateway, origin, RESEARCH) == LATER, "the new credential")


def test_a_reload_that_names_a_missing_credential_fails(
    start_gateway: StartGateway, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    """Nothing changes, the place is named; and when the file has come, the policy is taken up."""
    secret = tmp_path / "not-yet"
    gateway = start_gateway(origin, policy=policy_text(OTHER), FAL_KEY_DESIGN=BY_VARIABLE)
    gateway.policy_file.write_text(policy_of(secret), encoding="utf-8")
    event = gateway.wait_for_event("policy_reload_failed")
    assert event["errors"] == ["teams[1].fal_key_file: cannot be read: No such file or directory"]
    assert credential_of(gateway, origin, OTHER) == FAL_KEY
    with gateway.connect() as client:
        assert client.ask(proxy_request(key=RESEARCH)).status == 401
    secret.write_text(BY_FILE, encoding="utf-8")
    gateway.wait_for_event("policy_reloaded")
    until(lambda: gateway.ask_ops("/readyz").json()["policy_generation"] == 2, "the policy in every worker")
    assert [credential_of(gateway, origin, key) for key in (RESEARCH, DESIGN)] == [BY_FILE, BY_VARIABLE]


@pytest.mark.parametrize(
    ("variable", "content", "places"),
    [
        (None, BY_FILE, ["teams[0].fal_key_env"]),
        ("", None, ["teams[0].fal_key_env", "teams[1].fal_key_file"]),
        (f"{BY_VARIABLE} x", f"{BY_FILE}\n{BY_FILE}", ["teams[0].fal_key_env", "teams[1].fal_key_file"]),
        (BY_VARIABLE, BY_FILE * 200, ["teams[1].fal_key_file"]),
    ],
)
def test_a_start_without_a_credential_that_is_named_exits_78(
    tmp_path: Path, variable: str | None, content: str | None, places: list[str]
) -> None:
    """Every one that is missing or unfit is named by its place in the policy, and none is shown."""
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_text(content, encoding="utf-8")
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_of(secret), encoding="utf-8")
    env = {
        **dict(DEFAULTS),
        "FALGW_POLICY": str(policy),
        "FALGW_PORT": str(refused_port()),
        "FALGW_OPS_PORT": str(refused_port()),
        **({} if variable is None else {"FAL_KEY_DESIGN": variable}),
    }
    process = GatewayProcess(["serve"], folder=tmp_path / "run", env=env)
    try:
        assert process.wait(20) == 78
    finally:
        process.kill()
    lines = process.stderr().splitlines()
    assert [line.removeprefix(f"{policy}: ").partition(":")[0] for line in lines] == places
    assert not [word for word in ("design-secret", "research-secret") if word in process.stderr()]
