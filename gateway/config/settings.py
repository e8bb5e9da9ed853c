"""The environment read once into one frozen `Settings`.

Decided here: a wrong environment is told whole, every name with its reason in one go, and an unknown `FALGW_` name is
an error, since a misspelt limit that is silently ignored is worse than a start that fails. A name set to nothing counts
as left out, because compose files and charts pass empty values on. What carries a secret is a `SecretStr` and is never
quoted in a message.
"""

from __future__ import annotations

import difflib
import re
import ssl
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from gateway.config.fal_key import fit_for_a_field, key_in_file
from gateway.ledger.address import parse_database_url
from gateway.platform.redaction import WHITE_SPACE, has_white_space
from gateway.state.redis.address import parse_redis_url
from gateway.telemetry.tracing.settings import TraceSettings, read_tracing

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_PREFIX: Final = "FALGW_"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE)
_BASE_URL: Final = re.compile(
    rf"(?P<scheme>https?)://(?P<netloc>(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?)"
    r"(?P<prefix>(?:/[a-z0-9._~!$&'()*+,;=:-]+)*)/?",
    re.IGNORECASE,
)
_BEHIND_A_COMMA: Final = re.compile(r", +")
_LONGEST_SECONDS: Final = 7 * 86_400
Value = TypeVar("Value")

HIGHEST_PORT: Final = 65_535
_WILDCARD_HOSTS: Final = frozenset(("0.0.0.0", "::"))  # noqa: S104 (compared with, not listened on)


class SettingsError(Exception):
    """The environment does not make settings: `errors` holds every (name, message)."""

    def __init__(self, errors: tuple[tuple[str, str], ...]) -> None:
        super().__init__("\n".join(f"{name}: {message}" for name, message in errors))
        self.errors = errors


class BaseUrl(NamedTuple):
    """Where to connect in place of `https://host`: `http` or `https`, host with its port, path before the target's."""

    scheme: str
    netloc: str
    prefix: str

    @property
    def url(self) -> str:
        """Its three parts as one text."""
        return f"{self.scheme}://{self.netloc}{self.prefix}"


def _listener_host(text: str) -> str:
    if _HOST.fullmatch(text):
        return text
    _refuse_url(text)
    return str(ip_address(text))


def _networks(text: object) -> tuple[IPv4Network | IPv6Network, ...]:
    _refuse_url(str(text))
    return tuple(_each(ip_network, str(text)))


def _refuse_url(text: str) -> None:
    """Refuse what may hold a password, before a message quotes it."""
    if "@" in text or "://" in text:
        raise ValueError("should hold addresses and no URL")


def _each(read: Callable[[str], Value], text: str) -> list[Value]:
    """Return what is read of each part between commas; ValueError tells all that is wrong with them."""
    found: list[Value] = []
    faults: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            found.append(read(part))
        except ValueError as fault:
            faults.append(str(fault))
    if faults:
        raise ValueError("; ".join(faults))
    return found


def _base_url(host: str, url: str) -> BaseUrl:
    found = _BASE_URL.fullmatch(url)
    if not found:
        raise ValueError(f"{host}: the base URL should read http[s]://host[:port][/path] and nothing else")
    if int(found["port"] or 443) not in range(1, HIGHEST_PORT + 1):
        raise ValueError(f"{host}: the port should be 1 to {HIGHEST_PORT}")
    if {".", ".."} & set(found["prefix"].split("/")):
        raise ValueError(f"{host}: dot segments in the path of the base URL")
    return BaseUrl(found["scheme"].lower(), found["netloc"].lower(), found["prefix"])


def _override(entry: str) -> tuple[str, BaseUrl]:
    host, equals, url = entry.partition("=")
    if not equals or not _HOST.fullmatch(host) or host != host.lower():
        raise ValueError("each entry should read host=base-url, the host in lower case and without a port")
    return host, _base_url(host, url)


def _overrides(text: object) -> Mapping[str, BaseUrl]:
    if has_white_space(_BEHIND_A_COMMA.sub(",", str(text))):
        raise ValueError(WHITE_SPACE)
    pairs = _each(_override, str(text))
    hosts = [host for host, _ in pairs]
    twice = sorted({host for host in hosts if hosts.count(host) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    return MappingProxyType(dict(pairs))


def _trust_store(path: Path) -> Path:
    """Load the bundle once: libcurl would only notice at the first connection, and fail every one of them."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError as fault:
        raise ValueError("holds no certificate in PEM form") from fault
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror}") from fault
    return path


def _admin_key(key: SecretStr) -> SecretStr:
    return SecretStr(fit_for_a_field(key.get_secret_value()))


def _database_url(url: SecretStr) -> SecretStr:
    """Let the ledger's own parser read it, so that a start fails and not the ledger's process."""
    parse_database_url(url.get_secret_value())
    return url


def _redis_url(url: SecretStr) -> SecretStr:
    """Let the one who will connect there read it, so that a start fails and not a request."""
    parse_redis_url(url.get_secret_value())
    return url


Host = Annotated[str, AfterValidator(_listener_host)]
Port = Annotated[int, Field(ge=0, le=HIGHEST_PORT)]
Seconds = Annotated[float, Field(gt=0, le=_LONGEST_SECONDS, allow_inf_nan=False)]
Delay = Annotated[float, Field(ge=0, le=_LONGEST_SECONDS, allow_inf_nan=False)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]
Overrides = Annotated[Mapping[str, BaseUrl], BeforeValidator(_overrides)]


class Settings(BaseModel):
    """Everything that takes a restart to change. Times in seconds, sizes in bytes; port 0: a free one.

    A field's name in the environment is its name here in upper case behind `FALGW_`, but for fal's own.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: _PREFIX + name.upper(), hide_input_in_errors=True
    )

    fal_key: SecretStr | None = Field(default=None, alias="FAL_KEY")
    fal_admin_key: Annotated[SecretStr, AfterValidator(_admin_key)] | None = Field(default=None, alias="FAL_ADMIN_KEY")
    host: Host = Field(default="127.0.0.1", description="data listener: address or host name")
    port: Port = Field(default=8080, description="data listener: port")
    ops_host: Host = Field(default="127.0.0.1", description="ops listener: address or host name")
    ops_port: Port = Field(default=9090, description="ops listener: port")
    policy: Path | None = Field(
        default=None, description="policy file; without one, built-in defaults and a key for this run"
    )
    workers: int = Field(default=1, ge=1, le=256, description="processes that share the data port")
    redis_url: RedisUrl | None = Field(default=None, description="Redis or Valkey shared by replicas")
    database_url: DatabaseUrl = Field(
        default=SecretStr("sqlite:///fal-gateway.db"), description="ledger; `postgresql://…` for several replicas"
    )
    origin_overrides: Overrides = Field(
        default_factory=lambda: MappingProxyType({}),
        description="`host=base-url,…`: connect there in place of `https://host`, Host kept",
    )
    ca_file: Annotated[Path, AfterValidator(_trust_store)] | None = Field(
        default=None, description="CA bundle for upstream TLS; without one, the system's"
    )
    max_body_bytes: int = Field(default=2**30, ge=1, le=10**15, description="largest request content")
    connect_timeout: Seconds = Field(default=10, description="upstream: name, TCP and TLS")
    first_byte_timeout: Seconds = Field(
        default=900,
        description="upstream: from the request fully sent to the whole head of the answer; interim answers (1xx) do"
        " not prolong it",
    )
    idle_timeout: Seconds = Field(default=300, description="upstream: silence within an answer")
    client_header_timeout: Seconds = Field(default=15, description="caller: time for a whole head")
    client_idle_timeout: Seconds = Field(
        default=60, description="caller: silence within content, or an answer not taken"
    )
    keepalive_timeout: Seconds = Field(default=620, description="caller: an idle connection between requests")
    client_least_rate: int = Field(default=1000, ge=0, description="caller: least upload rate over 30 s; 0: none")
    shutdown_delay: Delay = Field(default=5, description="SIGTERM: still accepting for so long while not ready")
    drain_timeout: Delay = Field(default=900, description="SIGTERM: time for open exchanges to end")
    max_inflight: int = Field(default=2000, ge=1, description="exchanges at once for each worker; above: 503")
    trusted_proxies: Networks = Field(
        default=(), description="networks, `,` between, whose `X-Forwarded-For` is believed"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged"
    )
    log_format: Literal["json", "console"] | None = Field(
        default=None, description="`json` or `console`; left out: `console` on a terminal, else `json`"
    )
    tracing: TraceSettings | None = Field(default=None, alias="OTEL")


def setting_names() -> tuple[str, ...]:
    """Return every `FALGW_` name, in the order of docs/settings.md."""
    aliases = (field.alias or "" for field in Settings.model_fields.values())
    return tuple(alias for alias in aliases if alias.startswith(_PREFIX))


def _unknown(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    known = setting_names()
    errors = []
    for name in sorted(name for name in environ if name.startswith(_PREFIX) and name not in known):
        near = difflib.get_close_matches(name, known, n=1)
        errors.append((name, "no such setting" + (f"; did you mean {near[0]}?" if near else "")))
    return errors


def _credential(environ: Mapping[str, str]) -> str | None:
    """Return the upstream key out of the one source that is set, None without one; ValueError where unusable."""
    pair = [name for name in ("FAL_KEY_ID", "FAL_KEY_SECRET") if name in environ]
    sources = [name for name in ("FAL_KEY", "FAL_KEY_FILE") if name in environ] + [" + ".join(pair)] * bool(pair)
    if len(sources) > 1:
        raise ValueError(f"set one source of the credential, not {len(sources)}: {', '.join(sources)}")
    if len(pair) == 1:
        raise ValueError(f"FAL_KEY_ID and FAL_KEY_SECRET go together; only {pair[0]} is set")
    if pair:
        return fit_for_a_field(f"{environ['FAL_KEY_ID']}:{environ['FAL_KEY_SECRET']}")
    if "FAL_KEY_FILE" in environ:
        return key_in_file(environ["FAL_KEY_FILE"])
    return fit_for_a_field(environ["FAL_KEY"]) if "FAL_KEY" in environ else None


def _credential_or_errors(environ: Mapping[str, str], *, needed: bool) -> tuple[str | None, list[tuple[str, str]]]:
    try:
        key = _credential(environ)
    except ValueError as fault:
        blamed = next((name for name in ("FAL_KEY_FILE", "FAL_KEY_ID", "FAL_KEY_SECRET") if name in environ), "FAL_KEY")
        return None, [(blamed, str(fault))]
    if key is None and needed:
        reason = "no fal credential: set FAL_KEY, or FAL_KEY_ID and FAL_KEY_SECRET, or FAL_KEY_FILE"
        return None, [("FAL_KEY", reason)]
    return key, []


def _same_listener(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Compare the texts: the check must not wait for a `Settings` that other errors prevent."""
    host, ops_host = (environ.get(name, "127.0.0.1") for name in ("FALGW_HOST", "FALGW_OPS_HOST"))
    port, ops_port = environ.get("FALGW_PORT", "8080"), environ.get("FALGW_OPS_PORT", "9090")
    overlap = host == ops_host or _WILDCARD_HOSTS & {host, ops_host}
    return [("FALGW_OPS_PORT", "the same listener as FALGW_PORT")] if port == ops_port != "0" and overlap else []


def _reason(error: ErrorDetails) -> str:
    return str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"]


def load_settings(environ: Mapping[str, str], *, need_credential: bool = True) -> Settings:
    """Return the settings that an environment makes; `SettingsError` tells everything that is wrong with it.

    The files behind `FAL_KEY_FILE` and `FALGW_CA_FILE` are read here, so that a start fails and not a request.
    """
    given = {name: value for name, value in environ.items() if value}
    key, errors = _credential_or_errors(given, needed=need_credential)
    values = {name: given[name] for name in (*setting_names(), "FAL_ADMIN_KEY") if name in given}
    tracing, faults = read_tracing(given)
    errors += faults
    try:
        settings = Settings.model_validate({**values, "FAL_KEY": key, "OTEL": tracing})
    except ValidationError as fault:
        errors += [(str(error["loc"][0]), _reason(error)) for error in fault.errors(include_url=False)]
    errors += _same_listener(given) + _unknown(environ)
    if errors:
        raise SettingsError(tuple(errors))
    return settings
