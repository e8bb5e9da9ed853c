"""What every dashboard keeps to: it is what its generator writes, whole, in order, and asks for what is exported."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import pytest

from gateway.telemetry.metrics.families import FAMILIES, PREFIX
from grafana.generator.files import CHART, READABLE, compact, dashboards, rendered
from grafana.generator.page import WIDTH, ShelfError, shelf
from grafana.generator.panels import note
from tests.dashboards.boards import BOARDS, NAMES
from tests.dashboards.interpolation import ALL, Window, built_in, filled
from tests.harness.promql import declared_labels, read

if TYPE_CHECKING:
    from tests.dashboards.boards import Board, Target

CONFIG_MAP_BYTES: Final = 1 << 20
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WINDOW: Final = Window(0, 3600, 15)
CHOICES: Final = dict.fromkeys(("job", "team", "key", "endpoint", "class"), (ALL,))
EXPORTED: Final = declared_labels()
TARGETS: Final = tuple(target for board in BOARDS for target in board.targets)
NOT_SHOWN: Final[dict[str, str]] = {}
"""Families that no dashboard shows, with the reason."""

each_board = pytest.mark.parametrize("board", BOARDS, ids=NAMES)
each_target = pytest.mark.parametrize("target", TARGETS, ids=str)


def queries(target: Target) -> list[str]:
    """Return a target's query as Prometheus sees it, once for each way in which it can be split."""
    splits = next(board.splits for board in BOARDS if board.name == target.board) if "$by" in target.expr else ["team"]
    return [filled(target.expr, {**CHOICES, "by": by}, built_in(WINDOW, 15)) for by in splits]


def test_the_files_are_what_the_generator_writes() -> None:
    """Generating again changes nothing, neither what is imported nor what the chart brings."""
    for name, content in dashboards().items():
        assert (READABLE / f"{name}.json").read_text(encoding="utf-8") == rendered(content)
        assert (CHART / f"{name}.json").read_text(encoding="utf-8") == compact(content)
    assert {path.stem for path in CHART.iterdir()} == {path.stem for path in READABLE.glob("*.json")} == set(NAMES)


def test_all_fit_into_one_config_map() -> None:
    """Kubernetes takes at most 1 MiB; half of it is left for what is to come."""
    assert sum(path.stat().st_size for path in CHART.iterdir()) < CONFIG_MAP_BYTES / 2


@each_board
def test_a_dashboard_names_itself(board: Board) -> None:
    """A stable uid, a title, a description, the tag, UTC, one shared cursor, and links to all others."""
    content = board.content
    assert content["uid"] == f"fal-gateway-{board.name}"
    assert content["title"]
    assert content["description"]
    assert content["tags"] == ["fal-gateway"]
    assert (content["timezone"], content["graphTooltip"]) == ("utc", 2)
    assert {link["url"] for link in content["links"]} == {f"/d/fal-gateway-{name}" for name in NAMES} - {
        f"/d/fal-gateway-{board.name}"
    }
    assert "id" not in content
    assert "__inputs" not in json.dumps(content)


@each_board
def test_every_panel_says_what_it_shows(board: Board) -> None:
    """A title of its own, a description, and a unit where it shows numbers."""
    panels = [panel for panel in board.panels if panel["type"] != "row"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith((".", ")"))
        assert panel["type"] == "text" or panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@each_board
def test_ids_are_unique(board: Board) -> None:
    """Every panel has an id, and no two have the same."""
    ids = [panel["id"] for panel in board.panels]
    assert ids == list(range(1, len(ids) + 1))


@each_board
def test_panels_leave_no_hole_and_do_not_overlap(board: Board) -> None:
    """Every cell of the grid, down to the lowest panel, belongs to exactly one panel."""
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in board.panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert set(cells) == {(x, y) for x in range(WIDTH) for y in range(max(y for _, y in cells) + 1)}


def test_a_shelf_that_does_not_fill_its_width_is_refused() -> None:
    """A hole or an overlap cannot be written down."""
    with pytest.raises(ShelfError):
        shelf(4, (20, note("a", "b", "c")))


@each_board
def test_the_data_source_is_a_variable(board: Board) -> None:
    """No panel, query or variable names a Prometheus of its own."""
    assert [board.variables[0][part] for part in ("name", "type", "query")] == [
        "datasource",
        "datasource",
        "prometheus",
    ]
    for asking in board.asking:
        assert asking["datasource"] == SOURCE
        assert all(query["datasource"] == SOURCE for query in asking["targets"])
    assert all(variable["datasource"] == SOURCE for variable in board.variables if variable["type"] == "query")


@each_board
def test_choices_take_several_values_and_all(board: Board) -> None:
    """Whoever looks at two teams, or at all, can; and the choice is there at the start."""
    for variable in board.variables:
        if variable["type"] == "query":
            assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")
            assert variable["current"]["value"] == [ALL]


@each_target
def test_a_query_parses(target: Target) -> None:
    """Each query is PromQL, whatever it is split by, and asks for metrics and labels that are exported."""
    for query in queries(target):
        assert read(query, EXPORTED).faults == []


@each_target
def test_rates_fit_how_often_is_scraped(target: Target) -> None:
    """A rate goes over `$__rate_interval` in a graph, and over the range or that in a figure: never a fixed time."""
    windows = re.findall(r"(?:rate|increase)\([^\[\]]+\[([^\]]+)\]", target.expr)
    assert set(windows) <= ({"$__rate_interval", "$__range"} if target.instant else {"$__rate_interval"})


@each_target
def test_every_query_keeps_to_the_chosen_gateways(target: Target) -> None:
    """No selector reads past the choice of gateways."""
    selectors = re.findall(rf'{PREFIX}\w+(\{{job=~"\$job")?', target.expr)
    assert selectors
    assert all(selectors), target.expr


def test_only_the_ledger_says_spent() -> None:
    """A title that says *spent* stands over the ledger's sums, and over no counter."""
    titled = [target for target in TARGETS if "spent" in target.panel.lower()]
    about_the_ledger = {f"{PREFIX}{name}" for name in ("ledger_cost_usd", "ledger_up", "build_info")}
    assert len(titled) > 8
    assert all(read(queries(target)[0], EXPORTED).metrics <= about_the_ledger for target in titled)


def test_every_family_is_shown() -> None:
    """What is exported is to be seen somewhere, or left out for a reason that is written down."""
    shown = set[str]().union(*(read(queries(target)[0], EXPORTED).metrics for target in TARGETS))
    names = {re.sub(rf"^{PREFIX}|_(bucket|sum|count)$", "", name) for name in shown}
    assert {family.name for family in FAMILIES} - names == set(NOT_SHOWN)
