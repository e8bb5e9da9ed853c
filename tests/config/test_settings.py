"""Settings: what the environment makes, every error at once, and no secret in any of it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from gateway.config.settings import BaseUrl, Settings, SettingsError, load_settings, setting_names
from gateway.ledger.database import Database
from gateway.ledger.errors import LedgerUnusableError

KEY = {"FAL_KEY": "id:canary"}
DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@dataclass(frozen=True, slots=True)
class Wrong:
    """A setting that is refused, and a part of the reason."""

    name: str
    value: str
    reason: str


WRONG = (
    Wrong("FALGW_HOST", "a b", "does not appear to be"),
    Wrong("FALGW_HOST", "[::1]", "does not appear to be"),
    Wrong("FALGW_PORT", "65536", "less than or equal to 65535"),
    Wrong("FALGW_PORT", "-1", "greater than or equal to 0"),
    Wrong("FALGW_PORT", "tcp://10.0.0.1:80", "valid integer"),
    Wrong("FALGW_PORT", "9090", "same listener"),
    Wrong("FALGW_OPS_HOST", "ex_ample", "does not appear to be"),
    Wrong("FALGW_OPS_PORT", "x", "valid integer"),
    Wrong("FALGW_WORKERS", "0", "greater than or equal to 1"),
    Wrong("FALGW_WORKERS", "1.5", "valid integer"),
    Wrong("FALGW_REDIS_URL", "http://h", "should begin with redis://"),
    Wrong("FALGW_REDIS_URL", "redis://", "name a place"),
    Wrong("FALGW_REDIS_URL", "redis://h:canary", "port should be 1 to 65535"),
    Wrong("FALGW_REDIS_URL", "rediss://h?ssl_ca_certs=/no/such/bundle.pem", "cannot be read: No such file"),
    Wrong("FALGW_DATABASE_URL", "mysql://h/d", "should read sqlite:///FILE or postgresql://"),
    Wrong("FALGW_DATABASE_URL", "gateway.db", "should read sqlite:///FILE"),
    Wrong("FALGW_DATABASE_URL", "postgresql://", "should read"),
    Wrong("FALGW_DATABASE_URL", "postgresql+psycopg://h/d", "should read"),
    Wrong("FALGW_DATABASE_URL", "postgresql://h:5433,i:5434/d", "should read"),
    Wrong("FALGW_DATABASE_URL", "postgresql://h:canary/d", "should read"),
    Wrong("FALGW_DATABASE_URL", "sqlite:///", "should read"),
    Wrong("FALGW_DATABASE_URL", "sqlite:///?timeout=1", "should read"),
    Wrong("FALGW_DATABASE_URL", "sqlite:///:memory:", "should read"),
    Wrong("FALGW_DATABASE_URL", "sqlite:///:memory:?timeout=1", "should read"),
    Wrong("FALGW_DATABASE_URL", "sqlite://x.db", "should read"),
    Wrong("FALGW_TRUSTED_PROXIES", "10.0.0.0/8,first,second", "'second' does not appear to be"),
    Wrong("FALGW_TRUSTED_PROXIES", "10.0.0.0/8,first,second", "'first' does not appear to be"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "bad,fal.run=ftp://h,queue.fal.run=http://h:70000", "each entry should read"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "bad,fal.run=ftp://h,queue.fal.run=http://h:70000", "queue.fal.run: the port"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run", "host=base-url"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "Fal.run=http://h", "lower case"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run:443=http://h", "without a port"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run=ftp://h", "http[s]://"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run=http://u:p@h", "http[s]://"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run=http://h?q=1", "http[s]://"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run=http://h#f", "http[s]://"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run=http://h//a", "http[s]://"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run=http://h/a/../b", "dot segments"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run=http://h:0", "port should be 1 to 65535"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run=http://h:70000", "port should be 1 to 65535"),
    Wrong("FALGW_ORIGIN_OVERRIDES", "fal.run=http://a,fal.run=http://b", "named twice: fal.run"),
    Wrong("FALGW_CA_FILE", "/no/such/bundle.pem", "cannot be read: No such file"),
    Wrong("FALGW_CA_FILE", __file__, "no certificate"),
    Wrong("FALGW_MAX_BODY_BYTES", "1 GiB", "valid integer"),
    Wrong("FALGW_MAX_BODY_BYTES", "0", "greater than or equal to 1"),
    Wrong("FALGW_MAX_BODY_BYTES", str(2**63), "less than or equal to"),
    Wrong("FALGW_CONNECT_TIMEOUT", "0", "greater than 0"),
    Wrong("FALGW_FIRST_BYTE_TIMEOUT", "nan", "finite"),
    Wrong("FALGW_IDLE_TIMEOUT", "inf", "finite"),
    Wrong("FALGW_CLIENT_HEADER_TIMEOUT", "15s", "valid number"),
    Wrong("FALGW_CLIENT_IDLE_TIMEOUT", "-1", "greater than 0"),
    Wrong("FALGW_KEEPALIVE_TIMEOUT", "0", "greater than 0"),
    Wrong("FALGW_CLIENT_LEAST_RATE", "-1", "greater than or equal to 0"),
    Wrong("FALGW_SHUTDOWN_DELAY", "-0.5", "greater than or equal to 0"),
    Wrong("FALGW_DRAIN_TIMEOUT", "1e9", "less than or equal to 604800"),
    Wrong("FALGW_MAX_INFLIGHT", "0", "greater than or equal to 1"),
    Wrong("FALGW_TRUSTED_PROXIES", "10.0.0.1/8", "host bits set"),
    Wrong("FALGW_TRUSTED_PROXIES", "10.0.0.0/8,nonsense", "does not appear to be"),
    Wrong("FALGW_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    Wrong("FALGW_LOG_FORMAT", "xml", "'json' or 'console'"),
)


def refused(environ: dict[str, str], *, need_credential: bool = True) -> dict[str, str]:
    """Return the errors of an environment that makes no settings, by name."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, need_credential=need_credential)
    assert str(caught.value) == "\n".join(f"{name}: {message}" for name, message in caught.value.errors)
    return dict(caught.value.errors)


def test_the_defaults_are_those_of_the_contract() -> None:
    """With a credential and nothing else, every setting has its default."""
    settings = load_settings(KEY)
    assert (settings.host, settings.port, settings.ops_host, settings.ops_port) == (
        "127.0.0.1",
        8080,
        "127.0.0.1",
        9090,
    )
    assert (settings.policy, settings.workers, settings.redis_url) == (None, 1, None)
    assert settings.database_url.get_secret_value() == "sqlite:///fal-gateway.db"
    assert (dict(settings.origin_overrides), settings.ca_file, settings.max_body_bytes) == ({}, None, 2**30)
    assert (settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout) == (10, 900, 300)
    assert (settings.client_header_timeout, settings.client_idle_timeout, settings.client_least_rate) == (15, 60, 1000)
    assert settings.keepalive_timeout == 620
    assert (settings.shutdown_delay, settings.drain_timeout, settings.max_inflight) == (5, 900, 2000)
    assert (settings.trusted_proxies, settings.log_level, settings.log_format) == ((), "info", None)


def test_values_arrive_parsed() -> None:
    """Inside, nobody parses again: ports are numbers, networks are networks, base URLs are in their parts."""
    bundle = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    settings = load_settings(
        {
            **KEY,
            "FALGW_HOST": "::",
            "FALGW_PORT": "0",
            "FALGW_OPS_PORT": "0",
            "FALGW_POLICY": "policy.yaml",
            "FALGW_CONNECT_TIMEOUT": "0.25",
            "FALGW_SHUTDOWN_DELAY": "0",
            "FALGW_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "FALGW_ORIGIN_OVERRIDES": "fal.run=http://[::1]:9/a/b/, queue.fal.run=HTTPS://mirror.example",
            "FALGW_DATABASE_URL": "sqlite:///x.db",
            "FALGW_LOG_FORMAT": "console",
            **({"FALGW_CA_FILE": bundle} if Path(bundle).exists() else {}),
        }
    )
    assert (settings.host, settings.port, settings.ops_port, settings.policy) == ("::", 0, 0, Path("policy.yaml"))
    assert (settings.connect_timeout, settings.shutdown_delay, settings.log_format) == (0.25, 0, "console")
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert settings.origin_overrides == {
        "fal.run": BaseUrl("http", "[::1]:9", "/a/b"),
        "queue.fal.run": BaseUrl("https", "mirror.example", ""),
    }


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.name}={wrong.value}")
def test_a_wrong_value_is_refused_by_name(wrong: Wrong) -> None:
    """A value outside its grammar or bounds is one error, under the name of its setting, with the reason."""
    errors = refused({**KEY, wrong.name: wrong.value})
    blamed = "FALGW_OPS_PORT" if "same listener" in wrong.reason else wrong.name
    assert list(errors) == [blamed]
    assert wrong.reason in errors[blamed]


def test_every_setting_has_a_wrong_value_here() -> None:
    """No setting takes just anything: each but the path of the policy is in the table above."""
    assert {wrong.name for wrong in WRONG} | {"FALGW_POLICY"} == set(setting_names())


def test_all_errors_are_told_at_once() -> None:
    """One wrong value never hides another: values, unknown names and the credential are told together."""
    values = {wrong.name: wrong.value for wrong in WRONG if "same listener" not in wrong.reason}
    errors = refused({**values, "FALGW_PROT": "1", "FALGW_XYZZY": ""})
    assert set(errors) == {*values, "FALGW_PROT", "FALGW_XYZZY", "FAL_KEY"}


def test_an_unknown_name_is_an_error_that_suggests_the_nearest() -> None:
    """A misspelt limit must not be ignored; names of others, and those that Kubernetes injects, are no concern."""
    assert refused({**KEY, "FALGW_MAX_INFLIHGT": "5"}) == {
        "FALGW_MAX_INFLIHGT": "no such setting; did you mean FALGW_MAX_INFLIGHT?"
    }
    assert refused({**KEY, "FALGW_QQQQQ": "5"}) == {"FALGW_QQQQQ": "no such setting"}
    load_settings({**KEY, "FAL_GATEWAY_PORT": "tcp://10.0.0.1:80", "PATH": "/bin", "FAL_ADMIN_KEY": "x"})


def test_the_admin_key_is_optional_and_secret() -> None:
    """Bills of fal are read under a key of their own; what is there has to be fit for a header, and is never shown."""
    assert load_settings(KEY).fal_admin_key is None
    settings = load_settings({**KEY, "FAL_ADMIN_KEY": "id:canary"})
    assert settings.fal_admin_key == SecretStr("id:canary")
    assert "canary" not in repr(settings)
    assert refused({**KEY, "FAL_ADMIN_KEY": "canary\n"}) == {
        "FAL_ADMIN_KEY": "should be one word of printable ASCII characters"
    }


def test_a_name_set_to_nothing_counts_as_left_out() -> None:
    """Compose files and charts pass empty values on; they ask for the default."""
    assert load_settings({**KEY, **dict.fromkeys(setting_names(), ""), "FAL_KEY_FILE": ""}) == load_settings(KEY)


@pytest.mark.parametrize(
    ("host", "ops_host", "port", "clash"),
    [
        ("127.0.0.1", "127.0.0.1", "8080", True),
        ("0.0.0.0", "127.0.0.1", "8080", True),  # noqa: S104 - settings under test, nothing listens
        ("127.0.0.1", "127.0.0.2", "8080", False),
        ("127.0.0.1", "127.0.0.1", "0", False),
    ],
)
def test_the_listeners_must_differ(host: str, ops_host: str, port: str, *, clash: bool) -> None:
    """The operators' listener on the callers' port is an error; port 0 is a free one each time."""
    environ = {**KEY, "FALGW_HOST": host, "FALGW_OPS_HOST": ops_host, "FALGW_PORT": port, "FALGW_OPS_PORT": port}
    if clash:
        assert list(refused(environ)) == ["FALGW_OPS_PORT"]
    else:
        load_settings(environ)


def credential(settings: Settings) -> str | None:
    """Return the upstream credential in the open."""
    return settings.fal_key.get_secret_value() if settings.fal_key else None


def test_the_credential_comes_from_one_of_three_places(tmp_path: Path) -> None:
    """FAL_KEY as it is; the two halves with a colon; the file without the line end that editors leave."""
    file = tmp_path / "key"
    file.write_bytes(b"id:secret\r\n")
    assert credential(load_settings({"FAL_KEY": "id:secret"})) == "id:secret"
    assert credential(load_settings({"FAL_KEY_ID": "id", "FAL_KEY_SECRET": "secret"})) == "id:secret"
    assert credential(load_settings({"FAL_KEY_FILE": str(file)})) == "id:secret"


@pytest.mark.parametrize(
    "environ",
    [
        {"FAL_KEY": "canary", "FAL_KEY_FILE": "canary"},
        {"FAL_KEY": "canary", "FAL_KEY_ID": "canary", "FAL_KEY_SECRET": "canary"},
        {"FAL_KEY": "canary", "FAL_KEY_SECRET": "canary"},
        {"FAL_KEY_ID": "canary"},
        {"FAL_KEY_SECRET": "canary"},
        {"FAL_KEY": "canary\n"},
        {"FAL_KEY": "canary canary"},
        {"FAL_KEY": "canary\r\nx-evil: 1"},
        {"FAL_KEY": "canaryé"},
        {"FAL_KEY_ID": "canary", "FAL_KEY_SECRET": "canary "},
    ],
)
def test_a_credential_that_cannot_be_used_is_refused_and_not_shown(environ: dict[str, str]) -> None:
    """Two sources, half a pair, or what would split a header field: an error whose message does not quote it."""
    errors = refused(environ)
    assert len(errors) == 1
    assert next(iter(errors)).startswith("FAL_KEY")
    assert "canary" not in str(errors)


@pytest.mark.parametrize(("content", "reason"), [(b"", "one word"), (b"a\nb", "one word"), (b"x" * 5000, "4096")])
def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """An empty file, two lines, or something far too long is not taken for a key."""
    file = tmp_path / "key"
    file.write_bytes(content)
    assert reason in refused({"FAL_KEY_FILE": str(file)})["FAL_KEY_FILE"]


def test_a_key_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """No such file, or a directory: an error at start, with the system's reason."""
    assert "No such file" in refused({"FAL_KEY_FILE": str(tmp_path / "none")})["FAL_KEY_FILE"]
    assert "directory" in refused({"FAL_KEY_FILE": str(tmp_path)})["FAL_KEY_FILE"]


def test_no_credential_is_an_error_only_where_one_is_needed() -> None:
    """The gateway does not start without one; what makes no call upstream may do without."""
    assert "no fal credential" in refused({})["FAL_KEY"]
    assert load_settings({}, need_credential=False).fal_key is None
    assert list(refused({"FAL_KEY_ID": "half"}, need_credential=False)) == ["FAL_KEY_ID"]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///x.db",
        "sqlite:////var/lib/fal-gateway/x.db",
        "sqlite:///a:memory:b",
        "postgresql://h",
        "postgresql://h/d",
        "postgresql:///d",
        "postgresql:///d?host=/run/postgresql&user=u",
        "postgresql://u:p@h:5432/d?sslmode=require",
        "postgresql://u:p%2F%40%3A@h/d",
        "postgresql://u:a/b?c:d@h/d",
        "postgresql://u@[::1]:5432/d",
        "postgresql://u:p@/d?host=h1:5433&host=h2:5434",
    ],
)
def test_a_database_that_is_taken_can_be_connected_to(url: str) -> None:
    """What passes here is read by the ledger's driver in the same way."""
    assert load_settings({**KEY, "FALGW_DATABASE_URL": url}).database_url.get_secret_value() == url
    Database(url).close()


@pytest.mark.parametrize(
    "url", [each.value for each in WRONG if each.name == "FALGW_DATABASE_URL" and each.value != "postgresql://"]
)
def test_the_ledger_refuses_what_is_refused_here(url: str) -> None:
    """The other way round; an address that names nothing would be libpq's own choice."""
    with pytest.raises(LedgerUnusableError):
        Database(url)


def test_no_secret_is_in_a_repr_or_a_message() -> None:
    """The credential and URLs that may hold a password print as stars, also where they are wrong."""
    settings = load_settings({**KEY, "FALGW_DATABASE_URL": "sqlite:///canary.db"})
    assert "canary" not in f"{settings!r} {settings}"
    errors = refused({**KEY, "FALGW_REDIS_URL": "redis://:canary@h/x", "FALGW_DATABASE_URL": "mysql://canary@h"})
    assert len(errors) == 2
    assert "canary" not in str(errors)
    settings = load_settings({**KEY, "FALGW_REDIS_URL": "redis://:canary@h"})
    assert "canary" not in f"{settings!r} {settings}"


def test_settings_are_frozen() -> None:
    """Nobody changes a setting on the way."""
    settings: Any = load_settings(KEY)
    with pytest.raises(ValidationError):
        settings.port = 1
    with pytest.raises(TypeError):
        settings.origin_overrides["fal.run"] = BaseUrl("http", "h", "")


def table() -> list[str]:
    """Return the table of settings as the docs should have it."""
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for field in Settings.model_fields.values():
        default = field.get_default(call_default_factory=True)
        value = default.get_secret_value() if isinstance(default, SecretStr) else default
        shown = f"`{value}`" if value else "none"
        named = field.alias in setting_names()
        rows += [f"| `{field.alias}` | {shown} | {field.description} |"] if named else []
    return rows


def test_the_docs_name_every_setting_as_it_is() -> None:
    """The table in docs/settings.md is the code's: names, defaults and meanings."""
    documented = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if "FALGW_" in line and line[0] == "|"]
    assert documented == table()[2:]
