"""The table that a run prints: what struck, what callers saw, what was violated."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.chaos.run import Report

VARYING: Final = re.compile(r"[0-9a-f-]{8,}|[0-9.]+")
SORT_CHARACTERS: Final = 60
LONGEST_CHARACTERS: Final = 500


def lines_of(report: Report) -> Iterator[str]:
    """Yield the lines of a site's table."""
    form = report.form
    shape = f"{form.gateways} x {form.workers} over {'Redis and PostgreSQL' if form.is_shared else 'SQLite'}"
    yield f"== {form.name}: {shape}, {form.callers} callers"
    kinds = Counter(strike.fault.kind for strike in report.strikes)
    yield f"faults      {len(report.strikes)}: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    for strike in report.strikes:
        if strike.trouble:
            yield f"  {strike.fault.kind} at {strike.fault.at_seconds:g} s had no effect: {strike.trouble}"
    statuses: Counter[int] = Counter()
    for (_, status), count in report.statuses.items():
        statuses[status] += count
    shown = ", ".join(f"{status or 'broken'} {count}" for status, count in sorted(statuses.items()))
    yield f"calls       {statuses.total()}: {shown}"
    yield f"executions  {report.executions}"
    yield "settled     " + ", ".join(
        f"{what} after {seconds:.0f} s" for what, seconds in report.settled_seconds.items()
    )
    yield f"violations  {len(report.problems)}"
    for problem, count in grouped(report.problems):
        more = f" (and {count - 1} alike)" if count > 1 else ""
        yield f"  - {' '.join(problem.split())[:LONGEST_CHARACTERS]}{more}"


def grouped(problems: Iterable[str]) -> list[tuple[str, int]]:
    """Return one problem of each sort and how many there are of it; ids and figures make no sort of their own."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        found.setdefault(VARYING.sub("#", problem)[:SORT_CHARACTERS], []).append(problem)
    return [(alike[0], len(alike)) for alike in found.values()]


def schedule_lines(report: Report) -> Iterator[str]:
    """Yield the schedule as it was drawn, a line for each fault."""
    for strike in sorted(report.strikes, key=lambda each: each.fault.at_seconds):
        fault = strike.fault
        yield f"  {fault.at_seconds:8.2f} s  {fault.resource:10}  {fault.kind}  {fault.seconds:g} s"
