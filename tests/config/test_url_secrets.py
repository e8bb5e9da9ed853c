"""No message holds any part of a URL's user information, whatever characters a password has, in whichever command.

The decision it carries: each secret is a word of its own on either side of a character that URLs have a meaning for, so
that a parser which cuts there shows one of the words.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest

from gateway.config.load import ConfigurationError, read_configuration, summary
from gateway.ledger.ledger import Ledger
from gateway.processes.shared import spool_root
from tests.harness.gateway import Gateway
from tests.harness.policy import policy_text
from tests.harness.ports import refused_port
from tests.harness.postgres import PostgresServer
from tests.harness.process import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS: Final = ("kestrel", "osprey", "falcon", "merlin", "buzzard")
RAW: Final = ("@", "/", "#", "?", ":", "@@")
AWKWARD: Final = (*RAW, "%", "%40", "%2F", "%zz", " ", "\n", "\\", "&", "=", ",", "[", "é", ":1/")
FORMS: Final = (
    "kestrel:osprey{0}falcon",
    "kestrel{0}merlin:osprey{0}falcon{0}buzzard",
    "kestrel{0}osprey",
    ":osprey{0}falcon",
    "kestrel:7{0}falcon",
)
URLS: Final = {
    "FALGW_DATABASE_URL": "postgresql://{}@h.invalid/ledger",
    "FALGW_REDIS_URL": "redis://{}@h.invalid/0",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://{}@h.invalid/otlp",
    "FALGW_ORIGIN_OVERRIDES": "fal.run=http://{}@h.invalid/a,queue.fal.run=http://h.invalid",
    "FALGW_TRUSTED_PROXIES": "http://{}@h.invalid:3128",
    "FALGW_HOST": "http://{}@h.invalid:3128",
    "FALGW_POLICY": "https://{}@h.invalid/hook",
}
"""Each URL that an operator sets, and settings in which one may end up by mistake; the webhook's is in the policy."""


def shown(text: str) -> list[str]:
    """Return the words of a secret that a text shows."""
    return [word for word in WORDS if word in text]


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("char", AWKWARD, ids=ascii)
def test_what_is_wrong_with_a_url_is_told_without_it(name: str, char: str, tmp_path: Path) -> None:
    """All that `check` and a start print of settings and policy; what is valid is shown nowhere, not in a repr."""
    for form in FORMS:
        url = URLS[name].format(form.format(char))
        env = {"FAL_KEY": "any:key", name: url}
        if name == "FALGW_POLICY":
            file = tmp_path / "policy.yaml"
            file.write_text(json.dumps({"budget_webhook": {"url": url, "secret_env": "NOWHERE"}}), encoding="utf-8")
            env = {"FAL_KEY": "any:key", name: str(file)}
        try:
            settings, policy = read_configuration(env)
        except ConfigurationError as error:
            told = f"{error} {error.errors} {error!r}"
        else:
            told = f"{settings!r} {settings} {summary(settings, policy)}"
        assert shown(told) == []


WHITE: Final = (" {}", "{} ", "{}\n", "\t{}", "{}\r\n", "{}\u00a0", "{}\x00")


@pytest.mark.parametrize("white", WHITE, ids=ascii)
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("FALGW_DATABASE_URL", "sqlite:///x.db"),
        ("FALGW_DATABASE_URL", "postgresql://h/d"),
        ("FALGW_REDIS_URL", "redis://h"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h"),
        ("FALGW_ORIGIN_OVERRIDES", "fal.run=http://h"),
    ],
)
def test_white_space_around_a_url_is_an_error(name: str, url: str, white: str) -> None:
    """A line end out of a secret's file named another database in each place that read it."""
    with pytest.raises(ConfigurationError, match=f"{name}: has white space or a line end"):
        read_configuration({"FAL_KEY": "any:key", name: white.format(url)})


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///a%20b.db", "a b.db"),
        ("sqlite:///a%2520b.db", "a%20b.db"),
        ("sqlite:///100%.db?timeout=1", "100%.db"),
        ("sqlite:///at@home.db", "at@home.db"),
        ("sqlite:///a%3Fb.db", "a?b.db"),
    ],
)
def test_percent_escapes_mean_the_same_file_everywhere(
    url: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings take it; the ledger's file and the spool beside it are of one name."""
    monkeypatch.chdir(tmp_path)
    read_configuration({"FAL_KEY": "any:key", "FALGW_DATABASE_URL": url})
    assert spool_root(url) == tmp_path / f"{name}.spool"
    ledger = Ledger(url)
    ledger.migrate()
    ledger.close()
    assert name in {path.name for path in tmp_path.iterdir()}


def test_serve_and_a_command_mean_the_same_file(tmp_path: Path) -> None:
    """What a gateway writes is where the command looks."""
    env = {"FALGW_DATABASE_URL": f"sqlite:///{tmp_path}/a%20b.db"}
    with Gateway(tmp_path / "run", policy=policy_text(), env=env).wait_ready():
        usage = GatewayProcess(["usage", "--format", "json"], folder=tmp_path / "usage", env=env)
        assert (usage.wait(20), usage.stderr()) == (0, "")
    assert (tmp_path / "a b.db").exists()


def outputs(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """Yield what each command prints under these settings."""
    for command in (("check",), ("usage",), ("reconcile",), ("backup", "copy.db")):
        process = GatewayProcess(command, folder=folder / command[0], env=env)
        assert process.wait(60) != 0 or command == ("check",)
        yield process.stdout() + process.stderr()
    gateway = Gateway(folder / "serve", policy=policy_text(), env={**env, "FALGW_LOG_LEVEL": "debug"})
    try:
        gateway.wait_for_event("ledger_down", lambda _event: True)
    finally:
        gateway.close(expected=None)
    yield gateway.process.stdout() + gateway.process.stderr()


def test_a_database_that_refuses_the_user_is_told_without_it(tmp_path: Path) -> None:
    """Escaped as it should be: every command goes as far as the server, whose refusal names the user."""
    secret = "osp@rey/falcon#merlin:buzzard%"  # noqa: S105 (made up)
    with PostgresServer() as server:
        url = f"postgresql://kestrel:{quote(secret, safe='')}@/postgres?host={quote(str(server.folder))}"
        env = {
            "FAL_KEY": "any:key",
            "FAL_ADMIN_KEY": "any:admin",
            "FALGW_DATABASE_URL": url,
            "FALGW_REDIS_URL": f"redis://kestrel:{quote(secret, safe='')}@127.0.0.1:{refused_port()}",
            "FALGW_LOG_FORMAT": "json",
        }
        for output in outputs(tmp_path, env):
            assert shown(output) == []
            assert "osp@rey" not in output


@pytest.mark.parametrize("char", RAW)
def test_a_raw_character_in_a_password_is_shown_nowhere(char: str, tmp_path: Path) -> None:
    """It is an error, or it is the password's: never a part of a host that a message names."""
    url = f"postgresql://kestrel:osprey{char}falcon@127.0.0.1:{refused_port()}/ledger"
    process = GatewayProcess(["usage"], folder=tmp_path, env={"FALGW_DATABASE_URL": url})
    process.wait(60)
    assert shown(process.stdout() + process.stderr()) == []
