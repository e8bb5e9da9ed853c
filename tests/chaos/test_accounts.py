"""Rules of the comparison: each way in which money or a request can go wrong is named, and what is right is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.ledger.entry import HELD, RELEASED, SETTLED, UNKNOWN, Entry
from tests.chaos import accounts, logs
from tests.chaos.observed import Call
from tests.chaos.report import grouped
from tests.chaos.tenants import BudgetLimit
from tests.harness.gateway import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW: Final = 1_764_500_000.0
LIMIT: Final = BudgetLimit("key", "design-web", "day", "2")
LOST: Final = {"request_id": "lost", "sha256": "b", "key": "design-web", "endpoint": "acme/upscale"}


def row(status: str = SETTLED, *, fal: str | None = "known", cost_ns: int | None = 10, source: str = "exact") -> Entry:
    """Return a row of the ledger."""
    moment = int(NOW * 1_000_000)
    figures: tuple[Any, ...] = (moment, moment, "1", "unit", "1", 30, cost_ns, source)
    return Entry(f"id-{fal}", status, "design", "design-web", "acme/upscale", "run", fal, *figures)


@pytest.mark.parametrize(
    ("look", "right", "wrong"),
    [
        (accounts.held, [row(), row(RELEASED)], [row(HELD)]),
        (accounts.twice_in_the_ledger, [row(), row(fal="other")], [row(), row()]),
        (lambda rows: accounts.unlike_the_bill(rows, {"known": 10}), [row()], [row(cost_ns=11)]),
        (
            lambda rows: accounts.unlike_the_bill(rows, {"known": 10}),
            [row(source="estimated", cost_ns=9)],
            [row(RELEASED)],
        ),
        (lambda rows: accounts.unlike_the_bill(rows, {"known": 10}), [row()], [row(fal="never billed")]),
        (
            lambda rows: accounts.missing_from_the_ledger(rows, [LOST], {"lost": 10}),
            [row(UNKNOWN, fal=None)],
            [row(UNKNOWN, fal="other")],
        ),
        (
            lambda rows: accounts.budget_passed(LIMIT, rows, now=NOW),
            [row(cost_ns=2 * 10**9)],
            [row(cost_ns=2 * 10**9 + 1)],
        ),
    ],
)
def test_wrong_money_is_named(look: Callable[[list[Entry]], list[str]], right: list[Entry], wrong: list[Entry]) -> None:
    """What is right gives nothing, what is wrong one sentence."""
    assert look(right) == []
    assert len(look(wrong)) == 1


def test_what_the_gateway_said_it_lost_is_not_missed() -> None:
    """As many purchases as it told may be missing, and no more."""
    others = [LOST, {**LOST, "request_id": "lost too"}]
    bill = {"lost": 10, "lost too": 10}
    assert accounts.missing_from_the_ledger([], others, bill, told_lost=2) == []
    assert len(accounts.missing_from_the_ledger([], others, bill, told_lost=1)) == 1


def test_two_executions_of_one_content_are_named() -> None:
    """Every content is sent once."""
    assert accounts.twice_executed([LOST, {**LOST, "sha256": "c"}]) == []
    assert len(accounts.twice_executed([LOST, LOST])) == 1


def test_a_budget_that_differs_is_named() -> None:
    """Its spend is the ledger's of the present period, and it holds nothing."""
    labels = 'scope="key",id="design-web",period="day"'

    def metrics(spent: str, reserved: str) -> Metrics:
        return Metrics(
            f"# TYPE fal_gateway_budget_spent_usd gauge\nfal_gateway_budget_spent_usd{{{labels}}} {spent}\n"
            f"# TYPE fal_gateway_budget_reserved_usd gauge\nfal_gateway_budget_reserved_usd{{{labels}}} {reserved}\n"
        )

    rows = [row(cost_ns=1_250_000_001), row(RELEASED)]
    assert accounts.budget_differs(LIMIT, metrics("1.250000001", "0"), rows, now=NOW) == []
    assert len(accounts.budget_differs(LIMIT, metrics("1.25", "0"), rows, now=NOW)) == 1
    assert len(accounts.budget_differs(LIMIT, metrics("1.25", "0.03"), rows, now=NOW)) == 2
    assert len(accounts.budget_differs(LIMIT, metrics("1.250000001", "0"), rows, now=NOW + 86_400)) == 1


def test_what_a_log_shows_and_misses_is_named(tmp_path: Path) -> None:
    """A secret, a request told twice, an answered request that is not there unless a process was killed just then."""
    log = tmp_path / "stderr.txt"
    told = '{"event":"exchange","request_id":"a","status":200,"class":"paid","method":"POST"}\n'
    log.write_text(f'{told}{told}{{"event":"other","key":"gwk_canary"}}\n{{"event":"exchange","torn', encoding="utf-8")
    assert logs.leaks([log], {"a key": "gwk_canary", "another": "gwk_other"}) == ["stderr.txt shows a key"]
    events = logs.exchanges(log)
    assert len(events) == 2
    assert len(logs.repeated(events)) == 1
    assert logs.repeated(events[:1]) == []
    calls = [Call("run", "design-web", 1, 200, 0, 100, "b")]
    assert len(logs.missing(calls, events, [])) == 1
    assert logs.missing(calls, events, [50, 102]) == []


def test_counts_that_differ_from_the_log_are_named() -> None:
    """What is told is counted, and what is counted is told, unless a process was killed."""

    def metrics(count: int) -> Metrics:
        return Metrics(
            f'# TYPE fal_gateway_requests_total counter\nfal_gateway_requests_total{{status="200"}} {count}\n'
            "# TYPE fal_gateway_log_lines_dropped_total counter\nfal_gateway_log_lines_dropped_total 0\n"
        )

    events = [{"status": 200, "class": "paid", "method": "POST"}] * 3
    assert logs.uncounted(events, metrics(3), kills=0) == []
    assert len(logs.uncounted(events, metrics(2), kills=1)) == 1
    assert len(logs.uncounted(events, metrics(4), kills=0)) == 1
    assert logs.uncounted(events, metrics(4), kills=1) == []


def test_problems_of_one_sort_are_told_once() -> None:
    """Ids and figures make no sort of their own, words do."""
    problems = ["request 01a22eadc5e0 got 5", "request 01a22eadc65c got 61", "a wrong key was let in"]
    assert grouped(problems) == [(problems[0], 2), (problems[2], 1)]
