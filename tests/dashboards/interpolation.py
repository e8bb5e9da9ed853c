"""Fills a dashboard's variables into a query the way Grafana's Prometheus data source does.

The decision: the rules are those of Grafana's source (packages/grafana-prometheus: `prometheusSpecialRegexEscape`,
`interpolateQueryExpr`, `getRateIntervalScopedVariable`), written down here so that a query is tested as Prometheus
will see it: several values as a group of alternatives, each escaped for a pattern within a quoted text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SPECIAL: Final = re.compile(r"[$^*{}\[\]'+?.()|]")
VARIABLE: Final = re.compile(r"\$\{(\w+)\}|\$(\w+)")
ALL: Final = "$__all"
ALL_PATTERN: Final = ".*"
LEAST_SCRAPES: Final = 4

Choice = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """What is looked at: from and to in seconds since the epoch, and how often Prometheus scrapes, in seconds."""

    since: float
    until: float
    scrape_seconds: float

    @property
    def seconds(self) -> int:
        """Length of the range."""
        return round(self.until - self.since)

    def step_seconds(self, points: int, least_seconds: float) -> float:
        """Return `$__interval`: the range over the points, not below a least, nor below how often is scraped."""
        return max((self.until - self.since) / points, least_seconds, self.scrape_seconds)


def built_in(window: Window, step_seconds: float) -> dict[str, str]:
    """Return Grafana's own variables: `$__interval`, `$__rate_interval`, `$__range` and their kin."""
    rate_seconds = max(step_seconds + window.scrape_seconds, LEAST_SCRAPES * window.scrape_seconds)
    return {
        "__interval": duration(step_seconds),
        "__interval_ms": str(round(step_seconds * 1000)),
        "__rate_interval": duration(rate_seconds),
        "__rate_interval_ms": str(round(rate_seconds * 1000)),
        "__range": f"{window.seconds}s",
        "__range_s": str(window.seconds),
        "__range_ms": str(window.seconds * 1000),
    }


def duration(seconds: float) -> str:
    """Return a time as PromQL has it."""
    return f"{round(seconds * 1000)}ms"


def pattern(choice: Sequence[str]) -> str:
    """Return several chosen values as one pattern within a quoted text; All is a pattern already."""
    if ALL in choice:
        return ALL_PATTERN
    escaped = [escape(value) for value in choice]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def escape(value: str) -> str:
    """Return a value as it has to stand in a pattern within a quoted text."""
    return SPECIAL.sub(lambda found: f"\\\\{found[0]}", value.replace("\\", "\\\\\\\\"))


def filled(expr: str, choices: Mapping[str, Choice], own: Mapping[str, str]) -> str:
    """Return a query with every variable in its place; KeyError for one that the dashboard does not have."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name in own:
            return own[name]
        choice = choices[name]
        return choice if isinstance(choice, str) else pattern(choice)

    return VARIABLE.sub(value, expr)
