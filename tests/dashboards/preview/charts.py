"""Graphs as SVG: lines, stacked areas and stacked bars over time, with axes and a legend.

The decision: what is drawn is what Prometheus answered, point by point; a gap in the answer is a gap in the line.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from tests.dashboards.preview.figures import written
from tests.dashboards.showing import points_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.dashboards.interpolation import Window
    from tests.dashboards.showing import Shown

PALETTE: Final = (
    "#2f7ed8", "#e8873a", "#2ca25f", "#c2397a", "#8a63d2", "#0f9aa8", "#b58900", "#d0453e", "#5b6b7b", "#7cb342",
)  # fmt: skip
LEFT: Final = 74
BOTTOM: Final = 20
TOP: Final = 6
LEGEND_LINE: Final = 17
LEGEND_MOST: Final = 6
TICKS: Final = 4
BRACES: Final = re.compile(r"\{\{(\w+)\}\}")
CALCULATED: Final[Mapping[str, Callable[[list[float]], float]]] = {"mean": fmean, "max": max, "sum": sum}


@dataclass(frozen=True, slots=True)
class Series:
    """One line: what it is called, and its value at each moment at which it has one."""

    name: str
    points: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a graph is drawn, in pixels, and what its axes span."""

    width: int
    height: int
    window: Window
    top: float

    def x(self, moment: float) -> float:
        """Return where a moment stands."""
        share = (moment - self.window.since) / (self.window.until - self.window.since)
        return LEFT + share * (self.width - LEFT - 8)

    def y(self, value: float) -> float:
        """Return where a value stands."""
        return TOP + (1 - value / self.top) * (self.height - TOP - BOTTOM)


def graph(panel: dict[str, Any], shown: Sequence[Shown], window: Window, size: tuple[int, int]) -> str:
    """Return a panel's graph with its legend below, as HTML of this size."""
    custom, unit = panel["fieldConfig"]["defaults"].get("custom", {}), panel["fieldConfig"]["defaults"]["unit"]
    series = [line for one, query in zip(shown, panel["targets"], strict=True) for line in series_of(one, query)]
    series.sort(key=lambda line: -max(line.points.values(), default=0))
    height = size[1] - LEGEND_LINE * (min(len(series), LEGEND_MOST) + 1)
    is_stacked = custom.get("stacking", {}).get("mode") == "normal"
    stacks = stacked(series) if is_stacked else [dict.fromkeys(line.points, 0.0) for line in series]
    reached = [
        base[moment] + value for line, base in zip(series, stacks, strict=True) for moment, value in line.points.items()
    ]
    frame = Frame(size[0], height, window, rounded_up(max(reached, default=0)))
    draw = bars if custom.get("drawStyle") == "bars" else area if is_stacked else line_only
    step = max((one.step_seconds for one in shown), default=1)
    pairs = reversed(list(enumerate(zip(series, stacks, strict=True))))  # the largest is drawn last, and seen
    marks = "".join(draw(frame, line, base, color(at), step) for at, (line, base) in pairs)
    svg = f'<svg width="{size[0]}" height="{height}">{axes(frame, unit)}{marks}</svg>'
    return svg + legend(series, unit, panel["options"]["legend"]["calcs"])


def color(number: int) -> str:
    """Return the colour of a line."""
    return PALETTE[number % len(PALETTE)]


def series_of(shown: Shown, query: dict[str, Any]) -> list[Series]:
    """Return the lines of one query."""
    return [
        Series(
            BRACES.sub(lambda found, labels=sample["metric"]: labels.get(found[1], ""), legend_of(query, shown)),  # type: ignore[misc]
            {moment: float(text) for moment, text in points_of(sample) if math.isfinite(float(text))},
        )
        for sample in shown.samples
    ]


def legend_of(query: dict[str, Any], shown: Shown) -> str:
    """Return what a query's lines are called, with the split that was chosen."""
    return str(query.get("legendFormat", "")).replace("$by", shown.by)


def stacked(series: Sequence[Series]) -> list[dict[float, float]]:
    """Return what each line stands on: the sum of those before it."""
    floor: dict[float, float] = {}
    bases = []
    for line in series:
        bases.append({moment: floor.get(moment, 0.0) for moment in line.points})
        for moment, value in line.points.items():
            floor[moment] = floor.get(moment, 0.0) + value
    return bases


def rounded_up(value: float) -> float:
    """Return a round number not below a value, for the top of an axis."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return float(next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * 0.999))


def axes(frame: Frame, unit: str) -> str:
    """Return lines and numbers of both axes."""
    marks = []
    for number in range(TICKS + 1):
        value = frame.top * number / TICKS
        y = frame.y(value)
        marks.append(f'<line x1="{LEFT}" x2="{frame.width - 8}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        marks.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="axis" text-anchor="end">{written(value, unit)}</text>'
        )
    ticks = max(2, frame.width // 170)
    for number in range(ticks + 1):
        moment = frame.window.since + (frame.window.until - frame.window.since) * number / ticks
        clock = f"{datetime.fromtimestamp(moment, UTC):%H:%M:%S}"
        anchor = "start" if number == 0 else "end" if number == ticks else "middle"
        marks.append(
            f'<text x="{frame.x(moment):.1f}" y="{frame.height - 4}" class="axis" text-anchor="{anchor}">{clock}</text>'
        )
    return "".join(marks)


def line_only(frame: Frame, line: Series, _base: Mapping[float, float], paint: str, step: float) -> str:
    """Return a line, broken where points are missing."""
    return "".join(
        f'<polyline points="{path}" fill="none" stroke="{paint}" stroke-width="1.6"/>'
        for path in (
            " ".join(f"{frame.x(moment):.1f},{frame.y(value):.1f}" for moment, value in run) for run in runs(line, step)
        )
    )


def area(frame: Frame, line: Series, base: Mapping[float, float], paint: str, step: float) -> str:
    """Return a filled band between what a line stands on and its top."""
    shapes = []
    for run in runs(line, step):
        upper = [f"{frame.x(moment):.1f},{frame.y(base[moment] + value):.1f}" for moment, value in run]
        lower = [f"{frame.x(moment):.1f},{frame.y(base[moment]):.1f}" for moment, _ in reversed(run)]
        shapes.append(f'<polygon points="{" ".join(upper + lower)}" fill="{paint}" fill-opacity="0.25"/>')
        shapes.append(f'<polyline points="{" ".join(upper)}" fill="none" stroke="{paint}" stroke-width="1.4"/>')
    return "".join(shapes)


def bars(frame: Frame, line: Series, base: Mapping[float, float], paint: str, step: float) -> str:
    """Return one bar for each point above 0, ending at its moment."""
    return "".join(
        f'<rect x="{frame.x(moment - step) + 0.5:.1f}" y="{frame.y(base[moment] + value):.1f}" '
        f'width="{max(1.0, frame.x(moment) - frame.x(moment - step) - 1):.1f}" '
        f'height="{max(0.0, frame.y(base[moment]) - frame.y(base[moment] + value)):.1f}" fill="{paint}"/>'
        for moment, value in line.points.items()
        if value > 0
    )


def runs(line: Series, step: float) -> list[list[tuple[float, float]]]:
    """Return a line's points in runs without a gap."""
    found: list[list[tuple[float, float]]] = []
    for point in line.points.items():
        if found and point[0] - found[-1][-1][0] < 1.5 * step:
            found[-1].append(point)
        else:
            found.append([point])
    return found


def legend(series: Sequence[Series], unit: str, figures: Sequence[str]) -> str:
    """Return a table of the lines with their figures, the largest first; the rest as a number."""
    heads = "".join(f"<th>{name}</th>" for name in figures)
    rows = []
    for at, line in enumerate(series[:LEGEND_MOST]):
        values = list(line.points.values()) or [0.0]
        cells = "".join(f"<td>{written(CALCULATED[name](values), unit)}</td>" for name in figures)
        swatch = f'<i style="background:{color(at)}"></i>'
        rows.append(f"<tr><td>{swatch}{escape(line.name)}</td>{cells}</tr>")
    more = f" and {len(series) - LEGEND_MOST} more" if len(series) > LEGEND_MOST else ""
    return f'<table class="legend"><tr><th>{more}</th>{heads}</tr>{"".join(rows)}</table>'
