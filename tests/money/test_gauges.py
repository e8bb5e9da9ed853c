"""What the ledger says was spent, as a gauge: the same for all who look, under bounded names, of no process's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.ledger.ledger import Ledger
from gateway.ledger.writer import Gauges
from gateway.money.gauges import LOOK_SECONDS, MOST_SERIES, MoneyGauges
from gateway.policy.budget import Budget
from gateway.state.memory.budgets import BudgetTotals
from gateway.telemetry.metrics.exposition import expose
from gateway.telemetry.metrics.families import LEDGER_COST
from gateway.telemetry.metrics.scoreboard import Scoreboard
from tests.harness.gateway import Metrics
from tests.ledger.rows import settled, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CENT = 10_000_000
WEB = ("design", "web-prod")


class Gateway:
    """As much of a gateway as shows its ledger."""

    def __init__(self, url: str) -> None:
        self.ledger, self.scoreboard, self._now = Ledger(url), Scoreboard(workers=1), 0.0
        self.ledger.migrate()
        self.purses: list[tuple[Budget, BudgetTotals]] = []
        self.restart()

    def restart(self, *, most_series: int = MOST_SERIES) -> None:
        """Begin as a ledger process that took the slot of one that was killed."""
        region = self.scoreboard.ledger.region
        region.attach()
        self._money_gauges = MoneyGauges(
            self.ledger,
            region,
            purses=lambda: self.purses,
            label=self.scoreboard.endpoints.label,
            most_series=most_series,
            clock=lambda: self._now,
        )

    def shown(self) -> dict[tuple[str, ...], float]:
        """Let a while pass, and return what is shown then."""
        self._now += LOOK_SECONDS
        self._money_gauges.show(Gauges(is_up=True, spool_bytes=0, oldest_seconds=0.0, applied=0, skipped=0))
        page, _ = expose(self.scoreboard, "")
        text = page.decode()
        return Metrics(text).table(LEDGER_COST.name, *LEDGER_COST.labels) if "ledger_cost_usd{" in text else {}

    def close(self) -> None:
        """Let go of everything."""
        self.ledger.close()
        self.scoreboard.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a database."""
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def gateways(url: str) -> Iterator[tuple[Gateway, Gateway]]:
    """Return two gateways that share a ledger."""
    pair = Gateway(url), Gateway(url)
    yield pair
    for gateway in pair:
        gateway.close()


def test_gateways_of_one_ledger_show_the_same(gateways: tuple[Gateway, Gateway]) -> None:
    """Each shows what all have spent, so that a dashboard takes the largest and not the sum."""
    first, second = gateways
    assert first.shown() == {}
    first.ledger.apply([settled(1), unknown(2)])
    second.ledger.apply([settled(3)])
    expected = {(*WEB, "fal-ai/flux/dev", "exact"): 0.1, (*WEB, "fal-ai/flux/dev", "unknown"): 0.025}
    assert first.shown() == second.shown() == expected


def test_a_new_process_shows_it_unchanged(gateways: tuple[Gateway, Gateway]) -> None:
    """The ledger's process may be killed: its successor writes the same sums into the same places."""
    gateway, _ = gateways
    gateway.ledger.apply([settled(1)])
    before = gateway.shown()
    gateway.restart()
    assert gateway.shown() == before != {}


def test_endpoints_are_capped_and_none_is_lost(gateways: tuple[Gateway, Gateway]) -> None:
    """Beyond the first fifty of the ledger they are `other`, those of the policy apart; no cent is lost."""
    gateway, other = gateways
    for number in range(60):
        gateway.ledger.apply([settled(number, endpoint=f"shop/{number:02}", changed_at_us=number, cost_ns=CENT)])
    named = {(*WEB, f"shop/{number:02}", "exact"): 0.01 for number in range(50)}
    assert gateway.shown() == {**named, (*WEB, "other", "exact"): 0.1}
    other.scoreboard.endpoints.configure(["shop/55"])
    assert other.shown() == {**named, (*WEB, "shop/55", "exact"): 0.01, (*WEB, "other", "exact"): 0.09}


@pytest.mark.parametrize("dies", [False, True])
def test_what_is_named_later_leaves_the_others(gateways: tuple[Gateway, Gateway], *, dies: bool) -> None:
    """A reload that prices an endpoint takes its money out of `other`; a sum that is nobody's any more is not shown.

    Whether or not the ledger's process is the one that has shown it.
    """
    gateway, _ = gateways
    for number in range(51):
        gateway.ledger.apply([settled(number, endpoint=f"shop/{number:02}", changed_at_us=number, cost_ns=CENT)])
    assert gateway.shown()[*WEB, "other", "exact"] == 0.01
    if dies:
        gateway.restart()
    gateway.scoreboard.endpoints.configure(["shop/50"])
    shown = gateway.shown()
    assert shown[*WEB, "shop/50", "exact"] == 0.01
    assert (*WEB, "other", "exact") not in shown


def test_series_are_capped(gateways: tuple[Gateway, Gateway]) -> None:
    """Names that operators have used over the years are bounded too; what is beyond is one sum by source."""
    gateway, _ = gateways
    gateway.restart(most_series=3)
    gateway.ledger.apply([settled(number, key=f"key-{number}", cost_ns=CENT) for number in range(5)])
    shown = gateway.shown()
    assert len(shown) == 4
    assert shown["other", "other", "other", "exact"] == 0.02


@pytest.mark.parametrize("dies", [False, True])
def test_a_budget_is_shown_while_there_is_one(gateways: tuple[Gateway, Gateway], *, dies: bool) -> None:
    """Limit, spent and held go with the sums; what a reload took out is not there any more, and may come back.

    Whether or not the ledger's process is the one that has shown it.
    """
    gateway, _ = gateways
    day, month = Budget("key/web-prod", "day", 50 * CENT), Budget("team/design", "month", 100 * CENT)

    def shown(name: str) -> dict[tuple[str, ...], float]:
        gateway.shown()
        text = expose(gateway.scoreboard, "")[0].decode()
        return Metrics(text).table(name, "scope", "id", "period") if f"{name}{{" in text else {}

    gateway.purses = [(day, BudgetTotals(1, 20 * CENT, 5 * CENT)), (month, BudgetTotals(1, 30 * CENT, 0))]
    assert shown("budget_limit_usd") == {("key", "web-prod", "day"): 0.5, ("team", "design", "month"): 1}
    assert shown("budget_spent_usd") == {("key", "web-prod", "day"): 0.2, ("team", "design", "month"): 0.3}
    assert shown("budget_reserved_usd") == {("key", "web-prod", "day"): 0.05, ("team", "design", "month"): 0}
    del gateway.purses[0]
    if dies:
        gateway.restart()
    for name in ("budget_limit_usd", "budget_spent_usd", "budget_reserved_usd"):
        assert set(shown(name)) == {("team", "design", "month")}
    gateway.purses = [(day, BudgetTotals(1, 0, 0))]
    assert shown("budget_spent_usd") == {("key", "web-prod", "day"): 0}


def test_a_budget_whose_sums_are_not_known_stands_still(gateways: tuple[Gateway, Gateway]) -> None:
    """A store that is away or was emptied says nothing of what was spent: no graph falls to 0, and none is missing."""
    gateway, _ = gateways
    day = Budget("key/web-prod", "day", 50 * CENT)

    def spent() -> dict[tuple[str, ...], float]:
        gateway.shown()
        return Metrics(expose(gateway.scoreboard, "")[0].decode()).table("budget_spent_usd", "id")

    unknown_yet = BudgetTotals(0, 0, 0)
    for purse, shown in (
        (unknown_yet, 0),
        (BudgetTotals(1, 20 * CENT, 0), 0.2),
        (unknown_yet, 0.2),
        (BudgetTotals(2, 0, 0), 0),
    ):
        gateway.purses = [(day, purse)]
        assert spent() == {("web-prod",): shown}
