"""The money of a site: the ledger's rows against fal's bill, the executions, and the budgets on `/metrics`.

The decision it carries: rows and bills are compared one by one, by fal's request id; only answers that were lost, whose
id no one learned, are counted against rows of unknown cost by key and endpoint.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from gateway.ledger.entry import CHARGED, HELD, RELEASED, SETTLED, UNKNOWN
from gateway.policy.budget import period_start
from tests.chaos.tenants import BUDGETS, NAMES, NANO, BudgetLimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.ledger.entry import Entry
    from tests.harness.gateway import Metrics

SHOWN: Final = 5


def held(entries: Iterable[Entry]) -> list[str]:
    """Return the rows that still hold money."""
    rows = [entry for entry in entries if entry.status == HELD]
    return [f"{len(rows)} rows are held, such as {_named(rows)}"] if rows else []


def unlike_the_bill(entries: Iterable[Entry], bill: Mapping[str, int]) -> list[str]:
    """Return the rows whose cost is not what fal bills; what was charged as estimated may differ."""
    wrong = []
    for entry in entries:
        billed = bill.get(entry.fal_request_id or "", 0)
        is_exact = entry.status == SETTLED and entry.source == "exact"
        if (is_exact and entry.cost_ns != billed) or (entry.status == RELEASED and billed):
            wrong.append(entry)
    return [f"{len(wrong)} rows differ from the bill, such as {_named(wrong)}"] if wrong else []


def twice_in_the_ledger(entries: Iterable[Entry]) -> list[str]:
    """Return fal's requests that two rows claim."""
    claims = Counter(entry.fal_request_id for entry in entries if entry.fal_request_id)
    twice = [name for name, count in claims.items() if count > 1]
    return [f"{len(twice)} executions are in the ledger twice, such as {twice[:SHOWN]}"] if twice else []


def missing_from_the_ledger(
    entries: Iterable[Entry], executions: Iterable[Mapping[str, str]], bill: Mapping[str, int], *, told_lost: int = 0
) -> list[str]:
    """Return what was billed and is neither in the ledger by its id nor may be one of its rows of unknown cost.

    `told_lost`: so many purchases the gateways themselves said that they could not write down.
    """
    rows = list(entries)
    known = {entry.fal_request_id for entry in rows if entry.fal_request_id}
    unknown = Counter(
        (entry.key, entry.endpoint) for entry in rows if entry.status == UNKNOWN and not entry.fal_request_id
    )
    lost = [each for each in executions if bill.get(each["request_id"]) and each["request_id"] not in known]
    missing = Counter((each["key"], each["endpoint"]) for each in lost) - unknown
    total = missing.total()
    if total <= told_lost:
        return []
    return [
        f"{total} of {len(lost)} lost answers have no row of unknown cost, {told_lost} told as lost: {dict(missing)}"
    ]


def twice_executed(executions: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the contents that were executed more than once: every caller sends each content once."""
    twice = [digest for digest, count in Counter(each["sha256"] for each in executions).items() if count > 1]
    return [f"{len(twice)} requests were executed twice, such as {twice[:SHOWN]}"] if twice else []


def budget_differs(limit: BudgetLimit, metrics: Metrics, entries: Iterable[Entry], *, now: float) -> list[str]:
    """Return what a budget says other than the ledger: its spend in the present period, and what it holds."""
    expected = spent_ns(limit, entries, now=now)
    labels = {"scope": limit.scope, "id": limit.id, "period": limit.period}
    spent, reserved = (round(metrics.value(f"budget_{what}_usd", **labels) * NANO) for what in ("spent", "reserved"))
    name = f"budget of {limit.scope} {limit.id} a {limit.period}"
    differs = f"{name}: spent {spent / NANO}, ledger {expected / NANO}"
    return [*([differs] if spent != expected else []), *([f"{name}: {reserved / NANO} held"] if reserved else [])]


def budget_passed(limit: BudgetLimit, entries: Iterable[Entry], *, now: float) -> list[str]:
    """Return whether more was charged in the present period than the budget allows."""
    spent = spent_ns(limit, entries, now=now)
    name = f"budget of {limit.scope} {limit.id} a {limit.period}"
    return [f"{name} is passed: {spent / NANO} of {limit.usd}"] if spent > limit.limit_ns else []


def spent_ns(limit: BudgetLimit, entries: Iterable[Entry], *, now: float) -> int:
    """Return what the ledger has charged a budget with in the period that is now."""
    since_us = period_start(limit.period, now) * 1_000_000
    owner = (lambda entry: entry.key) if limit.scope == "key" else (lambda entry: NAMES[entry.key])
    return sum(
        entry.cost_ns or 0
        for entry in entries
        if owner(entry) == limit.id and entry.status in CHARGED and entry.admitted_at_us >= since_us
    )


def budgets_differ(metrics: Metrics, entries: Iterable[Entry], *, now: float) -> list[str]:
    """Return what all budgets say other than the ledger."""
    rows = list(entries)
    return [problem for limit in BUDGETS for problem in budget_differs(limit, metrics, rows, now=now)]


def _named(entries: list[Entry]) -> str:
    """Return a few rows, with what tells them apart."""
    shown = [
        (entry.id, entry.key, entry.kind, entry.status, entry.source, entry.cost_ns, entry.fal_request_id)
        for entry in entries[:SHOWN]
    ]
    return "; ".join(" ".join(map(str, row)) for row in shown)
