"""The report of a run as Markdown: goals first, then a table for each case with every system."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from benchmarks.goals import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.case import Case, Column, Entry
    from benchmarks.results import Results, Row, Spread

CHART_NAME: Final = "results.svg"
_REACHED: Final = {True: "yes", False: "**no**", None: "–"}
_WORTH_A_LINE_PERCENT: Final = 0.5
_NOTES: Final = """\
The system under test has a core of its own, load and origin share the other ones. All systems of a
table are up at the same time and are measured in turn, round by round; a cell is the median of the rounds, with the
least and the most. CPU time is user and system time of all processes of the system. Trust ratios within one table, to
about 20 % on a shared machine, and no figure across two runs. `× gateway`: a system's figure divided by the gateway's.

The gateway does what it always does: it checks its key and the target, counts, and writes a log line for each request.
aiohttp, Express, nginx and haproxy check one secret and rewrite the same fields, with neither metrics nor log; LiteLLM
runs its pass-through endpoint, which checks no key without a paid licence. With fewer than four cores two workers are
judged by the CPU time of a request: what they can do is twice one's work, less what each request costs more.
"""


def render(results: Results, cases: Sequence[Case]) -> str:
    """Return the report; `cases` gives the order and the columns, what was not measured is left out."""
    parts = [
        "# Benchmark results",
        "Made by `make bench`; a new run replaces this file.",
        _facts(results),
        f"![Throughput by CPU time, delay and memory of all systems]({CHART_NAME})",
        "## Goals",
        _goals(results),
        "## How to read it",
        _NOTES,
        *(_section(results, case) for case in cases if case.key in results.cases),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _facts(results: Results) -> str:
    lines = [f"- {name}: {value}" for name, value in (results.settings | results.machine).items()]
    lines += [f"- **left out**: {name}, {why}" for name, why in results.left_out.items()]
    return "\n".join(lines)


def _goals(results: Results) -> str:
    rows = ((v.figure, v.aim, v.measured, _REACHED[v.reached]) for v in verdicts(results))
    return _table(("figure", "goal", "measured", "reached"), rows)


def _section(results: Results, case: Case) -> str:
    rows = results.cases[case.key]
    entries = [entry for entry in case.entries if entry.label in rows]
    table = _figures(case, entries, rows) if case.columns else _parts(rows[entries[0].label])
    notes = [f"- {label}: {why}" for label, row in rows.items() for why in dict.fromkeys(row.failures)]
    return "\n\n".join(part for part in (f"## {case.title}", f"{case.how}.", table, "\n".join(notes)) if part)


def _figures(case: Case, entries: Sequence[Entry], rows: dict[str, Row]) -> str:
    heads = ["system", *(column.head for column in case.columns)]
    ratio = next((column for column in case.columns if column.key == case.ratio), None)
    if ratio is not None and len(entries) > 1:
        heads.append(f"{ratio.head}, × {entries[0].label}")
    first = rows[entries[0].label]
    cells = []
    for entry in entries:
        row = rows[entry.label]
        cells.append([entry.label, *(_cell(row.spread(column.key), column) for column in case.columns)])
        if ratio is not None and len(entries) > 1:
            cells[-1].append(_ratio(row.spread(ratio.key), first.spread(ratio.key)))
    return _table(heads, cells)


def _parts(row: Row) -> str:
    """Return a table of a row's figures themselves, the largest first."""
    names = dict.fromkeys(name for figures in row.rounds for name in figures)
    spreads = {name: spread for name in names if (spread := row.spread(name)) is not None}
    ordered = sorted(spreads, key=lambda name: -spreads[name].median)
    shown = [name for name in ordered if spreads[name].median >= _WORTH_A_LINE_PERCENT]
    return _table(("part", "%"), ((name, f"{spreads[name].median:.1f}") for name in shown))


def _cell(spread: Spread | None, column: Column) -> str:
    if spread is None or math.isnan(spread.median):
        return "–"
    shown = _number(spread.median, column.digits)
    if spread.least == spread.most:
        return shown
    return f"{shown} ({_number(spread.least, column.digits)}–{_number(spread.most, column.digits)})"


def _number(value: float, digits: int) -> str:
    return "inf" if math.isinf(value) else f"{value:,.{digits}f}"


def _ratio(spread: Spread | None, first: Spread | None) -> str:
    if spread is None or first is None or not first.median:
        return "–"
    return f"{spread.median / first.median:.2f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    align = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, align, *rows))
