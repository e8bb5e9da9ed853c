"""What a policy file may say: the whole schema of CONTRACT 3 and 8 as pydantic models, one value at a time.

Decided here: where leaving a field out grants everything, an empty list is refused in place of being read one way or
the other. Patterns of URLs end their host in a fixed domain, because the fal credential goes wherever a pattern points.
What is wrong only in comparison with the rest of the file is `ruleset`'s to find.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from gateway.policy.glob import compile_globs
from gateway.policy.target import DEFAULT_URL_PATTERNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import core_schema

_RESERVED: Final = frozenset(("anonymous", "unknown"))
_DNS: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DURATION: Final = r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)"
_AMOUNT: Final = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
_IDENTIFIER: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
_LIMIT_NAME: Final = r"[A-Za-z][A-Za-z0-9._-]{0,62}"
_DIGEST: Final = r"sha256:[0-9a-fA-F]{64}"
_ORIGIN: Final = rf"[a-z][a-z0-9+.-]*://(?:{_DNS}(?:\.{_DNS})*|\[[0-9a-f:]+\])(?::[1-9][0-9]{{0,4}})?"
_URL_PATTERN: Final = rf"(?:\*\.)?{_DNS}(?:\.{_DNS})+/.*"
_ENDPOINT: Final = r"[A-Za-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9._~-]+)*"
_ENV_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_UNIT: Final = r"[A-Za-z0-9][A-Za-z0-9 ._/-]{0,62}"
_SECONDS_OF: Final = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0})
_LARGEST_INTEGER: Final = 999_999_999_999_999  # RFC 9651 section 3.3.1: what a RateLimit field can carry
_DEFAULT_PORT: Final = MappingProxyType({"http": ":80", "https": ":443"})


def _in(pattern: str, words: str) -> Callable[[str], str]:
    """Return a check that a text is in a grammar as a whole; its message is in words."""
    grammar = re.compile(pattern, re.DOTALL)

    def check(text: str) -> str:
        if not grammar.fullmatch(text):
            raise ValueError(words)
        return text

    return check


def _text(pattern: str) -> WithJsonSchema:
    """Return what an editor is told of such a text."""
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$"})


_in_identifiers: Final = _in(
    _IDENTIFIER, "should be 1 to 63 of a-z, 0-9, dot, hyphen, underscore, and begin with a letter or digit"
)
_in_limit_names: Final = _in(_LIMIT_NAME, "should be letters, digits, dot, hyphen, underscore, and begin with a letter")
_in_digests: Final = _in(_DIGEST, "should read sha256: and the 64 hex digits of the whole key")
_in_endpoints: Final = _in(_ENDPOINT, "should be an endpoint id, without wildcards")
_in_env_names: Final = _in(_ENV_NAME, "should be the name of an environment variable")
_in_units: Final = _in(_UNIT, "should be a short plain name")
_in_web_urls: Final = _in(r"https?://[!-~]+", "should be an http or https URL")
_in_cors_origins: Final = _in(_ORIGIN, "should be exactly scheme://host[:port] in lower case, no path, no wildcard")
_in_url_patterns: Final = _in(
    _URL_PATTERN, "should be host/path without scheme; a wildcard in the host only as the first label (*.fal.run/**)"
)


def identifier(text: str) -> str:
    """Return the id of a team or key; ValueError outside the grammar, or a name that metrics keep for themselves."""
    if text in _RESERVED:
        raise ValueError(f"{text!r} is reserved for callers without a key of their own")
    return _in_identifiers(text)


def _duration(value: object) -> float:
    """Return seconds, out of a number or of a text like `60s`, `5m`, `24h`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST_INTEGER:
        return float(value)
    found = re.fullmatch(_DURATION, value) if isinstance(value, str) else None
    if not found:
        raise ValueError("should be a number of seconds, or like 500ms, 60s, 5m, 24h, 7d")
    return float(found[1]) * _SECONDS_OF[found[2]]


def _whole_seconds(value: float) -> float:
    if not value.is_integer():
        raise ValueError("should be whole seconds: RateLimit-Policy has no finer window")
    return value


def _amount(value: object) -> Decimal:
    """Return an exact number; a YAML float has lost its digits before it comes here, so it is refused."""
    if isinstance(value, float):
        raise ValueError(f'put the number in quotes ("{value}"): floats are not exact')  # noqa: TRY004 (pydantic's way)
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_INTEGER
    if not whole and not (isinstance(value, str) and re.fullmatch(_AMOUNT, value)):
        raise ValueError('should be a decimal number in quotes, like "0.025", not negative')
    return Decimal(str(value))


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime):
        raise ValueError("should be a date with time and zone, like 2027-01-01T00:00:00Z")  # noqa: TRY004 (as above)
    if moment.tzinfo is None:
        raise ValueError("has no time zone: add Z, or an offset like +01:00")
    return moment


def _cors_origin(text: str) -> str:
    scheme, _, place = _in_cors_origins(text).partition("://")
    if place.endswith(_DEFAULT_PORT.get(scheme, " ")):
        raise ValueError(f"a browser leaves out {_DEFAULT_PORT[scheme]} with {scheme}")
    return text


def _glob(text: str) -> str:
    compile_globs([text])
    return text


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{_DURATION}$"}]}),
]
Window = Annotated[Duration, Field(gt=0, le=366 * 86_400), AfterValidator(_whole_seconds)]
Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_AMOUNT}$"}, {"type": "integer", "minimum": 0}]}),
]
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Identifier = Annotated[str, AfterValidator(identifier), _text(_IDENTIFIER)]
LimitName = Annotated[str, AfterValidator(_in_limit_names), _text(_LIMIT_NAME)]
Digest = Annotated[str, AfterValidator(_in_digests), _text(_DIGEST)]
CorsOrigin = Annotated[str, AfterValidator(_cors_origin), _text(_ORIGIN)]
UrlPattern = Annotated[str, AfterValidator(_in_url_patterns), AfterValidator(_glob), _text(_URL_PATTERN)]
EndpointGlob = Annotated[str, AfterValidator(_glob)]
EndpointId = Annotated[str, Field(max_length=256), AfterValidator(_in_endpoints), _text(_ENDPOINT)]
EnvName = Annotated[str, AfterValidator(_in_env_names), _text(_ENV_NAME)]
Quota = Annotated[int, Field(ge=1, le=_LARGEST_INTEGER)]


def _suits_unit(value: float | None, info: ValidationInfo) -> float | None:
    unit = info.data.get("unit")
    if unit == "concurrent-requests" and value is not None:
        raise ValueError(f"has no meaning for {unit}")
    if unit in ("requests", "content-bytes") and value is None and info.field_name == "window":
        raise ValueError(f"missing; {unit} are counted in a window")
    return value


def _window_by_unit(schema: JsonSchemaValue) -> None:
    schema["if"] = {"properties": {"unit": {"const": "concurrent-requests"}}}
    schema["then"] = {"properties": {"window": False, "burst": False}}
    schema["else"] = {"required": ["window"]}


class Part(BaseModel):
    """A mapping in the file: no unknown names, no conversions from one type to another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limit(Part):
    """So many requests or bytes in a window, or so many at once; a call waits up to `max_wait`, then it is refused."""

    model_config = ConfigDict(json_schema_extra=_window_by_unit)

    name: LimitName = Field(description="as callers read it in RateLimit-Policy; unique for its owner")
    unit: Literal["requests", "content-bytes", "concurrent-requests"]
    class_: Literal["free", "paid"] | None = Field(default=None, alias="class", description="left out: both")
    quota: Quota
    window: Annotated[Window | None, AfterValidator(_suits_unit)] = Field(default=None, validate_default=True)
    burst: Annotated[Quota | None, AfterValidator(_suits_unit)] = Field(default=None, description="left out: the quota")
    max_wait: Annotated[Duration, Field(ge=0, le=2)] = 0
    shadow: bool = Field(default=False, description="counted, not enforced")


class Budget(Part):
    """US dollars in a day, week or month of UTC; a warning as each share in `warn_at` is reached."""

    usd: Annotated[Amount, Field(decimal_places=9)]
    period: Literal["day", "week", "month"]
    warn_at: list[Annotated[float, Field(gt=0, le=1, strict=False)]] = []


class Targets(Part):
    """Where requests may go, and (`isolate_jobs`) who may poll, fetch or cancel a queue job that came through here."""

    allowed_url_patterns: list[UrlPattern] = Field(default=list(DEFAULT_URL_PATTERNS), min_length=1)
    allowed_endpoints: list[EndpointGlob] = Field(default=[], description="empty: all")
    binary_url_patterns: list[UrlPattern] = Field(default=[], description="targets that take any content type")
    isolate_jobs: Literal["none", "team", "key"] = "team"


class Anonymous(Part):
    """Limits of callers without a key, each by its address."""

    limits: list[Limit] = []


class Clients(Part):
    """Who may call without a key, and from which web pages."""

    allow_unauthorized_requests: bool = False
    cors_allowed_origins: list[CorsOrigin] = []
    anonymous: Anonymous = Anonymous()


class Team(Part):
    """Keys that share limits and budgets, and perhaps a fal credential of their own."""

    id: Identifier
    limits: list[Limit] = Field(default=[], description="shared by all keys of the team")
    fal_key_env: EnvName | None = Field(default=None, description="variable with the team's own fal credential")
    fal_key_file: Annotated[str, Field(min_length=1)] | None = Field(default=None, description="file with it")
    budgets: list[Budget] = []


class Key(Part):
    """A caller's credential, known by its digests; `allowed_endpoints` left out: all."""

    id: Identifier
    team: Identifier
    digests: list[Digest] = Field(min_length=1, description="several during a rotation")
    expires_at: Moment | None = None
    allowed_endpoints: Annotated[list[EndpointGlob], Field(min_length=1)] | None = None
    limits: list[Limit] = []
    budgets: list[Budget] = []
    max_body_bytes: Annotated[int, Field(ge=1)] | None = None


class Attribution(Part):
    """What fal is told about who called."""

    fal_tags: bool = Field(default=False, description="add gw.team and gw.key to x-fal-tags")


class Price(Part):
    """What one unit at an endpoint costs."""

    endpoint: EndpointId
    unit: Annotated[str, AfterValidator(_in_units), _text(_UNIT)]
    usd: Amount
    typical_units: Amount = Field(default=Decimal(1), description="the estimate before the units are known")


class BudgetWebhook(Part):
    """Where warnings about budgets go, and the variable with the secret that signs them."""

    url: Annotated[str, AfterValidator(_in_web_urls)]
    secret_env: EnvName


class Document(Part):
    """The policy of a fal-gateway. `on_state_loss` left out: local for limits, closed for budgets."""

    targets: Targets = Targets()
    clients: Clients = Clients()
    teams: list[Team] = []
    keys: list[Key] = []
    attribution: Attribution = Attribution()
    prices: list[Price] = []
    price_source: Literal["policy", "fal"] = "policy"
    on_state_loss: Literal["open", "local", "closed"] | None = None
    unpriced_endpoints: Literal["refuse", "allow"] = Field(default="refuse", description="for callers under a budget")
    settle_deadline: Annotated[Duration, Field(gt=0, le=90 * 86_400)] = 86_400
    budget_webhook: BudgetWebhook | None = None


class _EditorSchema(GenerateJsonSchema):
    """Leaves null out: in a file, a field is given or it is not there."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        left_out = schema.get("default") is None
        return self.generate_inner(schema["schema"]) if left_out else super().default_schema(schema)


def schema_text() -> str:
    """Return the JSON Schema of a policy, for editors; `gateway/policy.schema.json` is this text."""
    return json.dumps(Document.model_json_schema(schema_generator=_EditorSchema), indent=2) + "\n"
