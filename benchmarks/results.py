"""What a run came to: for each case and system its figures in every round, and by name what is missing, and why.

Medians with their least and most value; a figure is never averaged over systems or cases. The whole is kept as JSON
beside the report, so that two runs can be compared later by more than the report shows.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.case import Figures


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of a figure over the rounds."""

    median: float
    least: float
    most: float


@dataclass(slots=True)
class Row:
    """One system in one case: the figures of each round that went well, and how the others failed."""

    rounds: list[Figures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def spread(self, key: str) -> Spread | None:
        """Return a figure's spread, None where no round has it."""
        values = [figures[key] for figures in self.rounds if key in figures]
        return Spread(statistics.median(values), min(values), max(values)) if values else None


@dataclass(slots=True)
class Results:
    """A whole run. `cases`: by the case's key, then by the row's label. `left_out`: system to reason."""

    machine: dict[str, str]
    settings: dict[str, str]
    cases: dict[str, dict[str, Row]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def row(self, case: str, label: str) -> Row:
        """Return a row, a new one where there is none yet."""
        return self.cases.setdefault(case, {}).setdefault(label, Row())

    def median(self, case: str, label: str, key: str) -> float | None:
        """Return the median of a figure, None where it was not measured."""
        spread = self.cases.get(case, {}).get(label, Row()).spread(key)
        return None if spread is None else spread.median

    def most(self, case: str, label: str, key: str) -> float | None:
        """Return the highest value of a figure, None where it was not measured."""
        spread = self.cases.get(case, {}).get(label, Row()).spread(key)
        return None if spread is None else spread.most


def write_results(results: Results, path: Path) -> None:
    """Write a run as JSON (infinity and NaN as Python spells them)."""
    path.write_text(json.dumps(asdict(results), indent=1), encoding="utf-8")


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    cases = {key: {label: Row(**row) for label, row in rows.items()} for key, rows in whole["cases"].items()}
    return Results(whole["machine"], whole["settings"], cases, whole["left_out"])
