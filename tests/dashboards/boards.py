"""The dashboards as the tests read them: their panels, targets and variables, out of the JSON that is imported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[2] / "grafana"
GRAPH_POINTS: Final = 400
"""Points that a graph asks for where it does not say: Grafana takes its width in pixels."""
NAMES: Final = ("cost", "traffic", "upstream", "capacity")


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel, with the time range that the panel has for itself (empty: the dashboard's).

    A graph asks for at most `points`, and for none that are closer than `least_seconds`.
    """

    board: str
    panel: str
    letter: str
    expr: str
    instant: bool
    span: str
    points: int
    least_seconds: float

    def __str__(self) -> str:
        """Name it as a failed test should."""
        return f"{self.board} / {self.panel} / {self.letter}"


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    name: str
    content: dict[str, Any]

    @property
    def panels(self) -> list[dict[str, Any]]:
        """Its panels, rows too, in reading order."""
        return list(self.content["panels"])

    @property
    def asking(self) -> list[dict[str, Any]]:
        """Those panels that ask something."""
        return [panel for panel in self.panels if "targets" in panel]

    @property
    def targets(self) -> list[Target]:
        """Every query of every panel."""
        return [target_of(self.name, panel, query) for panel in self.asking for query in panel["targets"]]

    @property
    def variables(self) -> list[dict[str, Any]]:
        """Its variables, in the order in which Grafana fills them."""
        return list(self.content["templating"]["list"])

    @property
    def queries(self) -> dict[str, str]:
        """The query of each variable that has one, by its name."""
        return {variable["name"]: variable["query"] for variable in self.variables if variable["type"] == "query"}

    @property
    def splits(self) -> list[str]:
        """The labels that its graphs can be split by."""
        ways = (variable["query"] for variable in self.variables if variable["type"] == "custom")
        return [way for listed in ways for way in listed.split(",")]


def target_of(board: str, panel: dict[str, Any], query: dict[str, Any]) -> Target:
    """Return one of a panel's queries."""
    span, points = panel.get("timeFrom", ""), panel.get("maxDataPoints", GRAPH_POINTS)
    least_seconds = float(panel.get("interval", "0s").removesuffix("s"))
    return Target(board, panel["title"], query["refId"], query["expr"], query["instant"], span, points, least_seconds)


def read(name: str) -> Board:
    """Read a dashboard."""
    return Board(name, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


BOARDS: Final = tuple(map(read, NAMES))
