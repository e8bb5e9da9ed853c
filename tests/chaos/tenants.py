"""Who may call, and what it costs: teams, keys, limits, budgets and prices of a site, drawn up for each run.

The decision it carries: `typical_units` is the most that any call here uses, so that a hard budget is never passed, and
two budgets are small enough to be spent in a short run.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tests.harness.policy import GatewayKey, policy_text

if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS: Final = ("0.5", "1", "2", "3")
TYPICAL_UNITS: Final = "3"
PRICES: Final[Mapping[str, str]] = MappingProxyType(
    {"fal-ai/flux/dev": "0.025", "fal-ai/flux/schnell": "0.003", "acme/upscale": "0.01", "acme/video/long": "0.5"}
)
ENDPOINTS: Final = tuple(PRICES)
LARGE: Final = "100000"
SLOTS: Final = 2
SETTLE_DEADLINE_SECONDS: Final = 12
NANO: Final = 10**9


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """One budget of the policy: whose it is, and how much."""

    scope: str
    id: str
    period: str
    usd: str

    @property
    def limit_ns(self) -> int:
        """Its limit in nano-dollars."""
        return int(Decimal(self.usd) * NANO)


BUDGETS: Final = (
    BudgetLimit("team", "design", "month", LARGE),
    BudgetLimit("team", "research", "day", LARGE),
    BudgetLimit("team", "research", "week", LARGE),
    BudgetLimit("key", "design-web", "day", LARGE),
    BudgetLimit("key", "research-lab", "month", LARGE),
    BudgetLimit("key", "research-small", "day", "2"),
    BudgetLimit("key", "media-limited", "day", LARGE),
    BudgetLimit("key", "media-small", "month", "6"),
    BudgetLimit("key", "media-revoked", "day", LARGE),
)
LIMITS: Final[Mapping[str, list[dict[str, Any]]]] = MappingProxyType(
    {
        "media-limited": [
            {"name": "submits", "unit": "requests", "class": "paid", "quota": 20, "window": "5s"},
            {"name": "parallel", "unit": "concurrent-requests", "class": "paid", "quota": SLOTS},
        ],
        "research-lab": [{"name": "upload", "unit": "content-bytes", "quota": 2_000_000_000, "window": "3600s"}],
    }
)
NAMES: Final = MappingProxyType(
    {
        "design-web": "design",
        "design-batch": "design",
        "research-lab": "research",
        "research-small": "research",
        "media-limited": "media",
        "media-small": "media",
        "media-revoked": "media",
        "free-lance": "guests",
    }
)
REVOKED: Final = "media-revoked"
WITH_SLOTS: Final = "media-limited"


class Tenants:
    """The keys of one site, with their secrets."""

    def __init__(self) -> None:
        self.keys: Final = {name: GatewayKey(id=name, team=team, entry=_entry(name)) for name, team in NAMES.items()}
        self.stranger: Final = GatewayKey(id="stranger", team="none")

    def policy(self, *, without: str = "") -> str:
        """Return the policy file's text, with a key left out where it is revoked."""
        listed = [key for name, key in self.keys.items() if name != without]
        teams = [{"id": team, **_budgets("team", team)} for team in dict.fromkeys(NAMES.values())]
        prices = [
            {"endpoint": endpoint, "unit": "unit", "usd": usd, "typical_units": TYPICAL_UNITS}
            for endpoint, usd in PRICES.items()
        ]
        return policy_text(
            *listed,
            teams=teams,
            prices=prices,
            attribution={"fal_tags": True},
            settle_deadline=f"{SETTLE_DEADLINE_SECONDS}s",
        )


def _entry(name: str) -> dict[str, Any]:
    limits = LIMITS.get(name)
    return {**({"limits": limits} if limits else {}), **_budgets("key", name)}


def _budgets(scope: str, owner: str) -> dict[str, Any]:
    rows = [{"usd": each.usd, "period": each.period} for each in BUDGETS if (each.scope, each.id) == (scope, owner)]
    return {"budgets": rows} if rows else {}
