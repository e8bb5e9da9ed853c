"""What a policy file may say: the whole schema as pydantic models, one value at a time.

Decided here: where leaving a field out grants everything, an empty list is refused in place of being read one way or
the other. Patterns of URLs end their host in a fixed domain, because the fal credential goes wherever a pattern points.
What is wrong only in comparison with the rest of the file is `ruleset`'s to find.
"""

from __future__ import annotations

import json
from decimal import Decimal  # noqa: TC003 (pydantic reads annotations)
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from gateway.config.grammar import (
    Amount,
    CorsOrigin,
    Digest,
    Duration,
    EndpointGlob,
    EndpointId,
    EnvName,
    Identifier,
    LimitName,
    Moment,
    Quota,
    UnitName,
    UrlPattern,
    WebUrl,
    Window,
)
from gateway.policy.price import MOST_USD, picodollars_of
from gateway.policy.target import DEFAULT_URL_PATTERNS

if TYPE_CHECKING:
    from pydantic_core import core_schema

_MOST_BUDGET_USD: Final = 1_000_000_000  # what 64 bits of nanodollars hold, with room for what is held of it


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


def _fits_memory(usd: Decimal) -> Decimal:
    if picodollars_of(usd) is None:
        raise ValueError(f"should be at most {MOST_USD:,} US dollars")
    return usd


def _can_be_charged(typical_units: Decimal | None, info: ValidationInfo) -> Decimal | None:
    usd = info.data.get("usd")
    if usd is not None and typical_units is not None and typical_units * usd > MOST_USD:
        raise ValueError(f"times usd, is more than {MOST_USD:,} US dollars: no request may cost that much")
    return typical_units


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

    usd: Annotated[Amount, Field(decimal_places=9, le=_MOST_BUDGET_USD)]
    period: Literal["day", "week", "month"]
    warn_at: list[Annotated[float, Field(gt=0, le=1, strict=False)]] = []


def _no_hold(mode: object) -> object:
    if mode == "hold":
        raise ValueError("hold is not supported yet: use refuse or allow")
    return mode


class Realtime(Part):
    """Whether realtime tokens are given out, and how long they live at most; key, team and top level, nearest first.

    What a token buys at fal is counted in no budget.
    """

    mode: Annotated[Literal["refuse", "allow"], BeforeValidator(_no_hold)] | None = Field(
        default=None, description="left out: refuse for callers under a budget, else allow"
    )
    max_token_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = Field(default=None, description="left out: 120")


class Targets(Part):
    """Where requests may go, and (`isolate_jobs`) who may poll, fetch or cancel a queue job that came through here."""

    allowed_url_patterns: list[UrlPattern] = Field(default=list(DEFAULT_URL_PATTERNS), min_length=1)
    allowed_endpoints: Annotated[list[EndpointGlob], Field(min_length=1)] | None = Field(
        default=None, description="left out: all"
    )
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
    realtime: Realtime = Realtime()


class Key(Part):
    """A caller's credential, known by its digests; `allowed_endpoints` left out: all."""

    id: Identifier
    team: Identifier
    digests: list[Digest] = Field(min_length=1, description="several during a rotation")
    expires_at: Moment | None = None
    allowed_endpoints: Annotated[list[EndpointGlob], Field(min_length=1)] | None = None
    limits: list[Limit] = []
    budgets: list[Budget] = []
    realtime: Realtime = Realtime()
    max_body_bytes: Annotated[int, Field(ge=1, le=10**15)] | None = None


class Attribution(Part):
    """What fal is told about who called."""

    fal_tags: bool = Field(default=False, description="add gw.team and gw.key to x-fal-tags")


class Price(Part):
    """What one unit at an endpoint costs."""

    endpoint: EndpointId
    unit: UnitName
    usd: Annotated[Amount, AfterValidator(_fits_memory)]
    typical_units: Annotated[Annotated[Amount, Field(gt=0)] | None, AfterValidator(_can_be_charged)] = Field(
        default=None, description="the estimate before the units are known; left out: the median of what was seen"
    )


class BudgetWebhook(Part):
    """Where warnings about budgets go, and the variable with the secret that signs them."""

    url: WebUrl
    secret_env: EnvName


class Document(Part):
    """The policy of a fal-gateway. `on_state_loss` left out: local for limits, closed for budgets."""

    targets: Targets = Targets()
    clients: Clients = Clients()
    teams: list[Team] = []
    keys: list[Key] = []
    attribution: Attribution = Attribution()
    realtime: Realtime = Realtime()
    prices: list[Price] = []
    price_source: Literal["policy", "fal"] = "policy"
    on_state_loss: Literal["open", "local", "closed"] | None = None
    unpriced_endpoints: Literal["refuse", "allow"] = Field(default="refuse", description="for callers under a budget")
    max_share: Annotated[float, Field(gt=0, le=1, strict=False)] = Field(
        default=0.5, description="of a worker's places, for each of several teams, where they are few"
    )
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
    """Return the JSON Schema of a policy, for editors; `policy.schema.json` is this text."""
    return json.dumps(Document.model_json_schema(schema_generator=_EditorSchema), indent=2) + "\n"
