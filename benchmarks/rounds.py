"""The run itself: systems of a group up at once, each round goes through all of them before the next begins.

Decided here: a busy moment of the machine hits every system alike when rounds are interleaved, and medians forget it.
A measurement that fails costs its own cell and nothing else.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.case import Stage
from benchmarks.load.stale import PostIds
from benchmarks.load.wrk import LoadError
from benchmarks.origin import Origin
from benchmarks.running import House

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.case import Case, Entry, Extent, Measure
    from benchmarks.results import Results
    from benchmarks.running import Cores
    from benchmarks.systems import System


class Run:
    """One run of the benchmark: puts the cases to the systems and fills `results`."""

    def __init__(self, results: Results, *, extent: Extent, cores: Cores) -> None:
        self._results = results
        self._extent = extent
        self._cores = cores
        self._ids = PostIds()
        self._begin = time.monotonic()

    def measure_all(self, cases: Sequence[Case]) -> None:
        """Measure group after group, each with systems and an origin of its own, in a folder that goes away."""
        for group in self._groups(cases):
            with tempfile.TemporaryDirectory(prefix="bench-") as name:
                self._measure_group(group, Path(name))

    def _groups(self, cases: Sequence[Case]) -> list[list[Case]]:
        if not self._extent.fresh:
            return [list(cases)]
        return [list(group) for _, group in itertools.groupby(cases, key=lambda case: case.group)]

    def _measure_group(self, cases: Sequence[Case], folder: Path) -> None:
        with (
            Origin(folder, cores=self._cores.load) as origin,
            House(_systems(cases), origin, folder=folder / "systems", cores=self._cores) as house,
        ):
            self._results.left_out.update(house.left_out)
            for name, output in house.outputs.items():
                self._say(f"{name} {house.left_out[name]}; it said:\n{output}")
            for case in cases:
                self._measure_case(case, house, origin)

    def _measure_case(self, case: Case, house: House, origin: Origin) -> None:
        entries = [entry for entry in case.entries if entry.system.name in house.running]
        for entry in entries:
            if entry.warm is not None:
                self._attempt(entry.warm, entry, self._stage(entry, house, origin))
        for number in range(self._extent.rounds if case.repeats else 1):
            self._say(f"{case.title}, round {number + 1}")
            for entry in entries:
                self._measure_entry(case, entry, self._stage(entry, house, origin))

    def _measure_entry(self, case: Case, entry: Entry, stage: Stage) -> None:
        row = self._results.row(case.key, entry.label)
        if stage.running.has_ended:
            row.failures.append("it had ended by itself")
            return
        outcome = self._attempt(entry.measure, entry, stage)
        if isinstance(outcome, str):
            row.failures.append(outcome)
        else:
            row.rounds.append(outcome)

    def _attempt(self, measure: Measure, entry: Entry, stage: Stage) -> dict[str, float] | str:
        try:
            return measure(stage)
        except (LoadError, OSError) as fault:
            self._say(f"  {entry.label}: {fault}")
            return str(fault)

    def _stage(self, entry: Entry, house: House, origin: Origin) -> Stage:
        return Stage(house.running[entry.system.name], origin, self._extent, self._ids)

    def _say(self, line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._begin:5.0f} s  {line}\n")
        sys.stderr.flush()


def _systems(cases: Sequence[Case]) -> list[System]:
    """Return the systems of these cases, each name once."""
    by_name = {entry.system.name: entry.system for case in cases for entry in case.entries}
    return list(by_name.values())
