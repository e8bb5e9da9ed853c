"""The dashboards before a real Prometheus that has watched a real gateway: all show something, and money is exact."""

from __future__ import annotations

import math
from calendar import monthrange
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final

import pytest

from tests.dashboards.acts import KEYS, STRANGER
from tests.dashboards.boards import BOARDS, NAMES
from tests.dashboards.interpolation import ALL, Choice
from tests.dashboards.preview.sheet import page
from tests.dashboards.scene import Scene
from tests.dashboards.showing import Shown, options, points_of, show
from tests.money.market import FLUX, NS, UNPRICED, WORKFLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.dashboards.boards import Board

EMPTY: Final = {
    "cost / Fal's bill less ours / A": "the gateway compares with the bill a minute after its start, and then hourly",
}
"""Targets that show nothing in this scene, with the reason."""

BAR_SECONDS: Final = 10

pytestmark = pytest.mark.timeout(240)  # the first test waits for the scene, which takes half a minute of quiet

each_board = pytest.mark.parametrize("board", BOARDS, ids=NAMES)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Return the scene, played to its end; everything in it still runs."""
    with Scene(tmp_path_factory.mktemp("scene")) as played:
        yield played


def everyone(board: Board, by: str = "team") -> dict[str, Choice]:
    """Return the choices as they are when a dashboard is opened."""
    return {**dict.fromkeys(board.queries, (ALL,)), "by": by}


def asked(
    scene: Scene, title: str, *, since: float | None = None, until: float | None = None, **chosen: Choice
) -> Shown:
    """Return what one panel of the Cost dashboard shows."""
    board = BOARDS[NAMES.index("cost")]
    target = next(target for target in board.targets if target.panel == title)
    return show(scene.prometheus, target, scene.window(since, until), {**everyone(board), **chosen})


def in_ns(shown: Shown, label: str) -> dict[str, int]:
    """Return dollars by a label, in nano-dollars, where there are any."""
    sums: dict[str, int] = {}
    for sample in shown.samples:
        name = sample["metric"][label]
        sums[name] = sums.get(name, 0) + sum(round(float(number) * NS) for _, number in points_of(sample))
    return {name: amount for name, amount in sums.items() if amount}


def total_ns(shown: Shown) -> int:
    """Return the one figure that a panel shows, in nano-dollars."""
    (number,) = shown.numbers
    return round(number * NS)


def less(later: dict[str, int], earlier: dict[str, int]) -> dict[str, int]:
    """Return what came between two sums, where something did."""
    names = later.keys() | earlier.keys()
    between = {name: later.get(name, 0) - earlier.get(name, 0) for name in names}
    return {name: amount for name, amount in between.items() if amount}


@each_board
def test_every_panel_shows_something(scene: Scene, board: Board) -> None:
    """No query fails and none comes back empty, but those that are known to and why."""
    shown = [show(scene.prometheus, target, scene.window(), everyone(board)) for target in board.targets]
    empty = {str(one.target): one.query for one in shown if not one.numbers}
    expected = {name for name in EMPTY if name.startswith(f"{board.name} / ")}
    assert empty.keys() == expected, {name: query for name, query in empty.items() if name not in expected}
    assert [str(one.target) for one in shown if any(map(math.isinf, one.numbers))] == []


@each_board
def test_every_variable_offers_something(scene: Scene, board: Board) -> None:
    """The queries of all variables find values; those of callers and endpoints are the ones that were there."""
    offered = options(scene.prometheus, board, scene.window())
    assert all(offered.values()), offered
    assert {key.team for key in KEYS} <= set(offered.get("team", [key.team for key in KEYS]))
    assert {key.id for key in KEYS} <= set(offered.get("key", [key.id for key in KEYS]))
    assert {FLUX, WORKFLOW, UNPRICED} <= set(offered.get("endpoint", [FLUX, WORKFLOW, UNPRICED]))


@each_board
def test_several_values_can_be_chosen(scene: Scene, board: Board) -> None:
    """Two values of each variable at once, whatever stands in them, and each way of splitting: no query fails."""
    offered = options(scene.prometheus, board, scene.window())
    several: dict[str, Choice] = {name: (*values[:2], "a.b+c|d\\e") for name, values in offered.items()}
    for target in board.targets:
        for by in board.splits if "$by" in target.expr else ["team"]:
            show(scene.prometheus, target, scene.window(), {**several, "by": by})


def test_spend_is_what_the_ledger_has(scene: Scene) -> None:
    """Dashboard, ledger and command say the same to the nano-dollar, past a correction by the bill and a restart."""
    last = scene.last
    assert total_ns(asked(scene, "Spent in the range")) == last.spent_ns > 0
    used = scene.market.usage("--since", "2020-01-01", "--by", "team,key,endpoint")
    assert round(float(used["total_usd"]) * NS) == last.spent_ns
    assert total_ns(asked(scene, "Spent this month")) == total_ns(asked(scene, "Spent today")) == last.spent_ns


@pytest.mark.parametrize("name", ["team", "key", "endpoint", "source"])
def test_each_split_of_spend_is_the_ledgers(scene: Scene, name: str) -> None:
    """By team, key, endpoint and source, each part is the ledger's, to the nano-dollar."""
    assert in_ns(asked(scene, f"Spent by {name}"), name) == scene.last.by(name)


def test_the_table_of_spenders_is_the_ledgers(scene: Scene) -> None:
    """Every row of the table is a sum of the ledger's rows."""
    rows = asked(scene, "Top spenders").samples
    assert sum(round(float(row["value"][1]) * NS) for row in rows) == scene.last.spent_ns


@pytest.mark.parametrize("name", ["team", "source"])
def test_a_range_counts_from_its_start(scene: Scene, name: str) -> None:
    """What was spent before the range is not in it; what fal's bill moved within it from one source to another, is."""
    begun = scene.first
    spent = less(scene.last.by(name), begun.by(name))
    assert in_ns(asked(scene, f"Spent by {name}", since=begun.moment), name) == spent
    assert total_ns(asked(scene, "Spent in the range", since=begun.moment)) == scene.last.spent_ns - begun.spent_ns


def test_a_range_after_the_correction_is_exact_too(scene: Scene) -> None:
    """From just before the restart on: only what was spent after it."""
    begun = scene.second
    spent = total_ns(asked(scene, "Spent in the range", since=begun.moment))
    assert spent == scene.last.spent_ns - begun.spent_ns > 0


def test_one_teams_spend_is_its_own(scene: Scene) -> None:
    """A choice of teams narrows the sum to theirs."""
    chosen = asked(scene, "Spent in the range", team=("design",))
    assert total_ns(chosen) == scene.last.by("team")["design"]
    assert total_ns(asked(scene, "Spent in the range", team=("design", "research"))) == scene.last.spent_ns


@pytest.mark.parametrize("name", ["team", "key", "endpoint"])
def test_the_bars_are_the_range(scene: Scene, name: str) -> None:
    """The bars of the graph add up to what was spent from the first one's start to the last one's end."""
    first = math.ceil(scene.began / BAR_SECONDS) * BAR_SECONDS
    last = math.ceil(scene.last.moment / BAR_SECONDS) * BAR_SECONDS
    bars = asked(scene, "Spent over time", since=first + BAR_SECONDS, until=last, by=name)
    assert in_ns(bars, name) == in_ns(asked(scene, f"Spent by {name}", since=first, until=last), name) != {}


def test_what_has_no_price_is_counted(scene: Scene) -> None:
    """A first request without a price is one, though `increase()` alone would see none."""
    rows = {row["metric"]["endpoint"]: float(row["value"][1]) for row in asked(scene, "Without a price").samples}
    assert rows == {UNPRICED: 1.0, STRANGER: 1.0}


def test_a_range_from_before_all_says_so(scene: Scene) -> None:
    """Where nothing was scraped when the range began, the panel says that its start is not known."""
    known = "Start is known"
    assert asked(scene, known, since=scene.first.moment).numbers == [1.0]
    assert asked(scene, known, since=scene.began - 3600).numbers == [0.0]


def test_the_months_forecast_goes_on_as_it_went(scene: Scene) -> None:
    """What was spent, over what has passed of the month, times its length; in UTC."""
    now = datetime.fromtimestamp(scene.last.moment, UTC)
    length = monthrange(now.year, now.month)[1] * 86_400
    passed = now.timestamp() - now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    (forecast,) = asked(scene, "Month at this pace").numbers
    assert forecast == pytest.approx(scene.last.spent_ns / NS * length / max(passed, 3600), rel=1e-3)


def test_budgets_are_as_the_policy_and_the_ledger_have_them(scene: Scene) -> None:
    """Limit and spend of each budget, by scope and period; nothing is held when nothing is under way."""
    board = BOARDS[NAMES.index("cost")]
    limits, spent, held, used, _ = (
        {
            row["metric"]["id"]: float(row["value"][1])
            for row in show(scene.prometheus, target, scene.window(), everyone(board)).samples
        }
        for target in board.targets
        if target.panel == "Budgets"
    )
    by_team, by_key = scene.last.by("team"), scene.last.by("key")
    assert limits == {"design": 250, "research": 10, "batch": 3, "intern": 0.06}
    assert {name: round(amount * NS) for name, amount in spent.items()} == {
        name: {**by_team, **by_key}[name] for name in limits
    }
    assert set(held.values()) == {0}
    assert used == pytest.approx({name: spent[name] / limit for name, limit in limits.items()})


@each_board
def test_a_preview_can_be_drawn(scene: Scene, board: Board) -> None:
    """The picture in the documentation has every panel with what it shows, and says what it is."""
    shown = [show(scene.prometheus, target, scene.window(), everyone(board)) for target in board.targets]
    by_panel = {panel["title"]: [one for one in shown if one.target.panel == panel["title"]] for panel in board.asking}
    text, height = page(board, by_panel, scene.window())
    assert "not Grafana" in text
    assert all(escape(panel["title"]) in text for panel in board.panels)
    assert text.count("No data") == sum(not any(one.numbers for one in ones) for ones in by_panel.values())
    assert height > 1000
