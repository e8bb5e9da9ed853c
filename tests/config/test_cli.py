"""The commands as an operator meets them: what they print, where, and how they end."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gateway.cli.main import main
from gateway.cli.reports import EXIT_CONFIG
from gateway.config.ruleset import load_ruleset
from gateway.policy.credential import digest_of, is_mistyped
from gateway.version import VERSION
from tests.harness.process import GatewayProcess, clean_environment, unwanted
from tests.harness.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

BROKEN_POLICY = "keys:\n  - id: k\n    team: nowhere\n    digests: []\n"
EXPIRED_POLICY = f"""\
teams: [{{id: t}}]
keys: [{{id: k, team: t, digests: ["sha256:{"a" * 64}"], expires_at: 2020-01-01T00:00:00Z}}]
"""
CANARY = "id:canary-of-the-fal-key"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test without settings of the machine that it runs on."""
    for name in [name for name in os.environ if unwanted(name)]:
        monkeypatch.delenv(name)


def test_keys_new_prints_one_json_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """A script reads id, team, secret and digest; the digest is the SHA-256 of the whole key text."""
    assert main(["keys", "new", "--id", "web-prod", "--team", "design", "--json"]) == 0
    out, err = capsys.readouterr()
    made = json.loads(out)
    assert (list(made), err, out.count("\n")) == (["id", "team", "secret", "digest"], "", 1)
    assert (made["id"], made["team"]) == ("web-prod", "design")
    assert re.fullmatch(r"gwk_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}", made["secret"])
    assert not is_mistyped(made["secret"].encode())
    assert made["digest"] == "sha256:" + digest_of(made["secret"].encode()).hex()


@pytest.mark.parametrize("name", ["web-prod", "no", "0", "1e3", "null"])
def test_keys_new_prints_the_secret_once_and_an_entry_that_loads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The entry goes into the policy as printed, also for ids that YAML would read as something else."""
    assert main(["keys", "new", "--id", name, "--team", name]) == 0
    out = capsys.readouterr().out
    [secret] = re.findall(r"gwk_\w+", out)
    entry = out.partition("under keys:\n")[2]
    rules = load_ruleset(f'teams:\n  - id: "{name}"\nkeys:\n{entry}', origin="p")
    assert rules.keys_by_digest[digest_of(secret.encode())].key == name


def test_every_key_is_another(capsys: pytest.CaptureFixture[str]) -> None:
    """Two keys made one after the other have nothing in common but their form."""
    secrets = set()
    for _ in range(2):
        main(["keys", "new", "--id", "a", "--team", "b", "--json"])
        secrets.add(json.loads(capsys.readouterr().out)["secret"])
    assert len(secrets) == 2


@pytest.mark.parametrize("name", ["", "Web", "a b", "anonymous", "unknown", "a" * 64, "-x"])
def test_keys_new_refuses_an_id_that_the_policy_would_refuse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What could not be loaded is not handed out: exit 2, the reason on stderr, no key."""
    with pytest.raises(SystemExit) as ended:
        main(["keys", "new", f"--id={name}", "--team", "t"])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert "--id" in err


def test_check_tells_every_error_of_settings_and_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings do not hide the policy, nor the policy the settings: all on stdout, a line each, exit 1."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(BROKEN_POLICY, encoding="utf-8")
    monkeypatch.setenv("FALGW_PORT", "x")
    monkeypatch.setenv("FALGW_PROT", "1")
    assert main(["check", str(policy)]) == 1
    lines = capsys.readouterr().out.splitlines()
    places = [re.split(r": (?=[A-Z]|no |List)", line)[0] for line in lines]
    assert places == [
        "FALGW_PORT",
        "FALGW_PROT",
        f"{policy}: keys[0].team",
        f"{policy}: keys[0].digests",
    ]


def test_check_reads_the_file_named_in_place_of_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FILE comes before FALGW_POLICY; without either there is only the settings to judge."""
    good, broken = tmp_path / "good.yaml", tmp_path / "broken.yaml"
    good.write_text("teams: [{id: t}]\n", encoding="utf-8")
    broken.write_text(BROKEN_POLICY, encoding="utf-8")
    monkeypatch.setenv("FAL_KEY", CANARY)
    monkeypatch.setenv("FALGW_POLICY", str(broken))
    assert [main(["check"]), main(["check", str(good)])] == [1, 0]
    monkeypatch.delenv("FALGW_POLICY")
    assert main(["check"]) == 0
    out, err = capsys.readouterr()
    assert f"settings and {good} are valid: 0 keys in 1 teams, 0 prices" in out
    assert CANARY not in out + err


def test_check_warns_of_a_policy_through_which_nobody_can_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is valid, and hardly meant: exit 0, and a line that says so."""
    policy = tmp_path / "policy.yaml"
    for text in ("", "teams: [{id: t}]\n", EXPIRED_POLICY):
        policy.write_text(text, encoding="utf-8")
        assert main(["check", str(policy)]) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("warning: keys: nobody can call")
    for text in (EXPIRED_POLICY.replace("2020", "2999"), "clients: {allow_unauthorized_requests: true}\n"):
        policy.write_text(text, encoding="utf-8")
        assert main(["check", str(policy)]) == 0
        assert "warning" not in capsys.readouterr().out


SHUT_OUT = """\
teams: [{id: t}]
targets: {allowed_url_patterns: [fal.run/fal-ai/flux/**], allowed_endpoints: [fal-ai/kling/**]}
keys: [{id: k, team: t, digests: ["sha256:%s"]}]
""" % ("0" * 64)
WITHOUT_MONEY = """\
teams: [{id: t}]
keys: [{id: k, team: t, digests: ["sha256:%s"], budgets: [{usd: "0", period: day}]}]
prices: [{endpoint: fal-ai/flux/dev, unit: image, usd: "0.025"}]
""" % ("0" * 64)
ONE_SHUT_OUT = """\
teams: [{{id: t}}]
targets: {{allowed_endpoints: [fal-ai/**]}}
keys:
- {{id: a, team: t, digests: ["sha256:{}"]}}
- {{id: b, team: t, digests: ["sha256:{}"], allowed_endpoints: [acme/**]}}
""".format("0" * 64, "1" * 64)


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        (SHUT_OUT, ["targets: nobody can call"]),
        (WITHOUT_MONEY, ["keys: nobody can buy", "keys[0]: can buy nothing"]),
        (ONE_SHUT_OUT, ["keys[1]: can call nothing"]),
    ],
    ids=["targets", "budget", "one key"],
)
def test_check_warns_of_what_shuts_callers_out(
    text: str, warnings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each value is right by itself, and exit is 0; which values keep whom out is said line by line."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(text, encoding="utf-8")
    assert main(["check", str(policy)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(lines) == len(warnings)
    assert all(line.startswith(f"warning: {start}") for line, start in zip(lines, warnings, strict=True))


def test_check_needs_no_credential_but_says_that_serve_does(capsys: pytest.CaptureFixture[str]) -> None:
    """A policy is checked where the secret is not: in a pipeline, or on somebody's desk. Half a credential is wrong."""
    assert main(["check"]) == 0
    assert "no fal credential is set" in capsys.readouterr().out


def test_check_finds_half_a_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there has to be right."""
    monkeypatch.setenv("FAL_KEY_ID", "id")
    assert main(["check"]) == 1


def test_check_makes_a_note_of_a_teams_credential_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipeline has no secrets: the policy is judged without them. One that is there and unfit is an error."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("teams: [{id: a, fal_key_env: FAL_KEY_A}, {id: b, fal_key_file: b}]\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(policy)]) == 0
    notes = capsys.readouterr().out.splitlines()[1:3]
    assert notes == [
        "teams[0].fal_key_env: names a variable that is not set: `serve` will want it",
        "teams[1].fal_key_file: cannot be read: No such file or directory: `serve` will want it",
    ]
    monkeypatch.setenv("FAL_KEY_A", f"{CANARY} x")
    assert main(["check", str(policy)]) == 1
    out, err = capsys.readouterr()
    assert out == f"{policy}: teams[0].fal_key_env: should be one word of printable ASCII characters\n"
    assert CANARY not in out + err


def test_check_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No database, no lock, no rewritten file is left by it."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("teams: [{id: t}]\n", encoding="utf-8")
    before = policy.stat()
    monkeypatch.setenv("FAL_KEY", CANARY)
    monkeypatch.chdir(tmp_path)
    assert main(["check", "policy.yaml"]) == 0
    assert list(tmp_path.iterdir()) == [policy]
    assert policy.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    "arguments", [[], ["keys"], ["xyzzy"], ["serve", "--listen", "1"], ["emulator", "--port", "65536"]]
)
def test_a_command_line_that_is_none_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown commands and flags, and a port that is none, are told on stderr with the usage."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert "usage: fal-gateway" in err


def test_the_version_is_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` names program and release."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"fal-gateway {VERSION}\n")


def test_serve_refuses_a_broken_start_at_once(tmp_path: Path) -> None:
    """Broken settings and policy: every error on stderr, nothing on stdout, exit 78 after less than a second's work."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(BROKEN_POLICY, encoding="utf-8")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--policy", str(policy), "--workers", "none"],
        env=clean_environment({"FALGW_LOG_LEVEL": "loud"}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (ended.returncode, ended.stdout) == (EXIT_CONFIG, "")
    for name in ("FAL_KEY: ", "FALGW_WORKERS: ", "FALGW_LOG_LEVEL: ", "keys[0].team: ", "keys[0].digests: "):
        assert name in ended.stderr
    # CPU and not the clock: the machine that runs the tests may be busy with others.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_serve_without_a_policy_prints_a_key_for_this_run(tmp_path: Path) -> None:
    """The key and a curl line on stdout, once workers are ready; neither key nor fal credential in the log."""
    settings = {"FAL_KEY": CANARY, "FALGW_PORT": "0", "FALGW_OPS_PORT": "0", "FALGW_SHUTDOWN_DELAY": "0"}
    process = GatewayProcess(["serve"], folder=tmp_path, env=settings)
    try:
        until(lambda: process.alive() and "a cat" in process.stdout(), "the curl line", timeout_seconds=20)
        [secret] = set(re.findall(r"gwk_\w+", process.stdout()))
        assert re.search(r"^curl http://127\.0\.0\.1:[0-9]+/api/fal/proxy \\$", process.stdout(), re.MULTILINE)
        process.stop()
    finally:
        process.kill()
    assert secret not in process.stderr()
    assert CANARY not in process.stdout() + process.stderr()


def test_serve_on_a_port_that_is_taken_says_so(tmp_path: Path) -> None:
    """A second gateway on the same port does not share it: one line of why, exit 1."""
    settings = {"FAL_KEY": CANARY, "FALGW_PORT": "0", "FALGW_OPS_PORT": "0", "FALGW_SHUTDOWN_DELAY": "0"}
    first = GatewayProcess(["serve"], folder=tmp_path / "first", env=settings)
    try:
        until(lambda: first.alive() and "curl" in first.stdout(), "the curl line", timeout_seconds=20)
        port = re.findall(r"http://127\.0\.0\.1:([0-9]+)", first.stdout())[0]
        second = GatewayProcess(["serve"], folder=tmp_path / "second", env={**settings, "FALGW_PORT": port})
        try:
            assert second.wait(20) == 1
        finally:
            second.kill()
        assert second.stderr().startswith("cannot start: ")
        assert "Traceback" not in second.stderr()
    finally:
        first.kill()


def test_commands_load_what_they_need_and_no_gateway() -> None:
    """Neither the data path nor a database's libraries: `keys new` and `check` run in pipelines, many times."""
    heavy = "{'pycurl', 'sqlalchemy', 'structlog', 'tornado'}"
    program = f"import sys, gateway.cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
