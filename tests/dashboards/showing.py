"""Asks a Prometheus everything that a dashboard would: each variable's query, then each panel's."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tests.dashboards.interpolation import ALL, Choice, Window, built_in, filled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.dashboards.boards import Board, Target
    from tests.harness.prometheus import Prometheus, Sample

LABEL_VALUES: Final = re.compile(r"label_values\((.+), (\w+)\)")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a target showed: the query as it was asked, its samples, what it was split by, and its step."""

    target: Target
    query: str
    samples: tuple[Sample, ...]
    by: str
    step_seconds: float

    @property
    def numbers(self) -> list[float]:
        """Every number in it that is one."""
        found = (point[1] for sample in self.samples for point in points_of(sample))
        return [number for number in map(float, found) if not math.isnan(number)]


def points_of(sample: Sample) -> list[tuple[float, str]]:
    """Return a sample's points: (seconds since the epoch, the number as text)."""
    return list(sample["values"]) if "values" in sample else [sample["value"]]


def options(prometheus: Prometheus, board: Board, window: Window) -> dict[str, list[str]]:
    """Return what each variable of a dashboard offers, filling those before it with All."""
    choices: dict[str, Choice] = {}
    offered: dict[str, list[str]] = {}
    for name, query in board.queries.items():
        found = LABEL_VALUES.fullmatch(query)
        assert found, query
        selector = filled(found[1], choices, {})
        offered[name] = prometheus.label_values(found[2], selector, window.since, window.until)
        choices[name] = (ALL,)
    return offered


def show(prometheus: Prometheus, target: Target, window: Window, choices: Mapping[str, Choice]) -> Shown:
    """Ask for one target in a window, or in the range that its panel has for itself."""
    seen = within(window, target.span)
    step = seen.step_seconds(target.points, target.least_seconds)
    query, by = filled(target.expr, choices, built_in(seen, step)), str(choices["by"])
    if target.instant:
        return Shown(target, query, tuple(prometheus.at(query, seen.until)), by, step)
    start, end = (math.floor(moment / step) * step for moment in (seen.since, seen.until))
    return Shown(target, query, tuple(prometheus.over(query, start, end, step)), by, step)


def within(window: Window, span: str) -> Window:
    """Return the range of a panel of its own: `now/d` is the day so far, `now/M` the month; in UTC."""
    if not span:
        return window
    midnight = datetime.fromtimestamp(window.until, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = {"now/d": midnight, "now/M": midnight.replace(day=1)}[span]
    return Window(since.timestamp(), window.until, window.scrape_seconds)
