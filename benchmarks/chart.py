"""The run as a picture: plain SVG, one panel for each of the figures that matter, one bar for each system.

Decided here: written by hand and not by a plotting library, so that the picture needs nothing installed and changes
only where figures do. Bars are linear and begin at zero; the gateway's has a colour of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from benchmarks.systems import ALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Results

_WIDTH: Final = 470
_BAR: Final = 18
_STEP: Final = 24
_LABEL: Final = 70
_VALUE: Final = 74
_HEAD: Final = 46
_PER_LINE: Final = 2
_GATEWAY_COLOUR: Final = "#0b7285"
_PEER_COLOUR: Final = "#adb5bd"


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of one case."""

    title: str
    case: str
    key: str
    digits: int = 0


PANELS: Final = (
    Panel("Small POST, 64 connections: requests per CPU-second (more is better)", "posts-64", "per_cpu_second"),
    Panel("Small POST, 1 connection: added p50, ms (less is better)", "posts-1", "added_p50_ms", 2),
    Panel("50 MB up, 8 at once: MB per CPU-second (more is better)", "up", "mb_per_cpu_second"),
    Panel("50 MB down, 8 at once: MB per CPU-second (more is better)", "down", "mb_per_cpu_second"),
    Panel("50 MB up, 8 at once: memory growth, MB (less is better)", "up", "growth_mb", 1),
    Panel("200 slow readers: memory growth, MB (less is better)", "readers", "growth_mb", 1),
    Panel("1,000 event streams: CPU µs an event (less is better)", "events", "cpu_us"),
    Panel("1,000 event streams: added delay p99, ms (less is better)", "events", "added_p99_ms", 1),
)


def draw(results: Results) -> str:
    """Return the picture of a run as an SVG document."""
    panel_height = _HEAD + _STEP * len(ALL)
    lines = math.ceil(len(PANELS) / _PER_LINE)
    width, height = _WIDTH * _PER_LINE, panel_height * lines + 10
    panels = [
        f'<g transform="translate({_WIDTH * (index % _PER_LINE)},{panel_height * (index // _PER_LINE)})">'
        f"{_panel(results, panel)}</g>"
        for index, panel in enumerate(PANELS)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def _panel(results: Results, panel: Panel) -> str:
    values = [(system.name, results.median(panel.case, system.name, panel.key)) for system in ALL]
    longest = max((value for _, value in values if value is not None and math.isfinite(value)), default=0.0)
    title = f'<text x="10" y="28" font-weight="bold" fill="#212529">{escape(panel.title)}</text>'
    return "".join([title, *_bars(values, longest=longest, digits=panel.digits)])


def _bars(values: Sequence[tuple[str, float | None]], *, longest: float, digits: int) -> list[str]:
    room = _WIDTH - _LABEL - _VALUE
    bars = []
    for index, (name, value) in enumerate(values):
        top = _HEAD + _STEP * index - 6
        length = room * max(0.0, value) / longest if value is not None and longest else 0.0
        shown = "not measured" if value is None else f"{value:,.{digits}f}"
        colour = _GATEWAY_COLOUR if name == "gateway" else _PEER_COLOUR
        bars.append(
            f'<text x="{_LABEL - 6}" y="{top + 13}" text-anchor="end" fill="#495057">{escape(name)}</text>'
            f'<rect x="{_LABEL}" y="{top}" width="{max(1.0, length):.1f}" height="{_BAR}" fill="{colour}"/>'
            f'<text x="{_LABEL + length + 6:.1f}" y="{top + 13}" fill="#212529">{shown}</text>'
        )
    return bars
