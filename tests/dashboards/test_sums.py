"""What the ledger's gauge adds up to, in the cases that a living gateway shows rarely: promtool evaluates the queries.

The decision: sums here are of halves and quarters, which are exact in binary; promtool compares without tolerance.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from grafana.generator.capacity import USED
from grafana.generator.queries import counted, spent, spent_bar, start_is_known
from tests.dashboards.interpolation import ALL, Window, built_in, filled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.dashboards.interpolation import Choice

MINUTE: Final = 60
SECONDS: Final = 30.0
CHOICES: Final[dict[str, Choice]] = {**dict.fromkeys(("job", "team", "key", "endpoint"), (ALL,)), "by": "team"}
BUILD: Final = "fal_gateway_build_info"


def ledger(instance: str = "a", *, namespace: str = "prod", source: str = "exact", endpoint: str = "flux") -> str:
    """Return the name of a series of the ledger's gauge."""
    labels = f'namespace="{namespace}",job="gw",instance="{instance}",team="t",key="k"'
    return f'fal_gateway_ledger_cost_usd{{{labels},endpoint="{endpoint}",source="{source}"}}'


def build(namespace: str = "prod") -> str:
    """Return the name of the series that says that a gateway is there."""
    return f'{BUILD}{{namespace="{namespace}",job="gw",instance="a",version="1"}}'


def check(
    folder: Path, expr: str, series: dict[str, str], *, between: tuple[int, int], expected: dict[str, float]
) -> None:
    """Evaluate a query over a range, from one minute to another; `series` have a value each minute from 0 on.

    `expected` is by the labels of the answer, `{}` for none.
    """
    since, until = between
    window = Window(since * MINUTE, until * MINUTE, MINUTE)
    query = filled(expr, CHOICES, built_in(window, (until - since) * MINUTE))
    samples = [{"labels": labels, "value": value} for labels, value in expected.items()]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": query, "eval_time": f"{until}m", "exp_samples": samples}],
    }
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [case]}), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_replicas_of_one_ledger_count_once(tmp_path: Path) -> None:
    """Each replica shows the same sums; together they are one ledger."""
    series = {ledger("a"): "1+0.5x20", ledger("b"): "1+0.5x20"}
    check(tmp_path, spent(), series, between=(10, 20), expected={"{}": 5})


def test_ledgers_of_two_gateways_add_up(tmp_path: Path) -> None:
    """In two namespaces there are two ledgers, also under one name of a job."""
    series = {ledger(namespace="prod"): "1+0.5x20", ledger(namespace="dev"): "0+0.25x20"}
    check(tmp_path, spent(), series, between=(10, 20), expected={"{}": 7.5})


@pytest.mark.parametrize("end", ["0x10", "stale"])
def test_money_that_moves_is_not_spent_again(tmp_path: Path, end: str) -> None:
    """The bill makes 4 estimated dollars 3.5 reconciled ones: the range is half a dollar less, by source both."""
    series = {ledger(source="estimated"): f"4x9 {end}", ledger(source="reconciled"): "_x9 3.5x11"}
    check(tmp_path, spent(), series, between=(5, 20), expected={"{}": -0.5})
    by_source = {'{source="estimated"}': -4.0, '{source="reconciled"}': 3.5}
    check(tmp_path, spent(by="source"), series, between=(5, 20), expected=by_source)


def test_an_endpoint_that_loses_its_name_is_not_spent_again(tmp_path: Path) -> None:
    """What was counted under its own name and is now under `other` is in both sums."""
    series = {ledger(endpoint="rare"): "2x9 stale", ledger(endpoint="other"): "1x9 3.5x11"}
    check(tmp_path, spent(), series, between=(5, 20), expected={"{}": 0.5})


def test_what_is_new_counts_from_nothing(tmp_path: Path) -> None:
    """A key that bought nothing before the range has all of its spend in it."""
    series = {ledger(): "1x20", ledger(endpoint="new"): "_x15 0.25 0.5x5"}
    check(
        tmp_path,
        spent(by="endpoint"),
        series,
        between=(10, 20),
        expected={'{endpoint="flux"}': 0, '{endpoint="new"}': 0.5},
    )


def test_an_empty_ledger_is_no_money(tmp_path: Path) -> None:
    """Before the first dollar the ledger has no series, and the panel says 0 and not that there is no data."""
    up = 'fal_gateway_ledger_up{namespace="prod",job="gw",instance="a"}'
    check(tmp_path, spent(), {up: "1x20"}, between=(10, 20), expected={"{}": 0})


def test_a_gap_at_the_ranges_start_is_bridged(tmp_path: Path) -> None:
    """Where nothing was scraped when the range began, the last value before is what was spent by then."""
    series = {ledger(): "1+0.5x20 stale _x99 13x60"}
    check(tmp_path, spent(), series, between=(90, 150), expected={"{}": 2})


def test_a_gateway_that_is_gone_has_spent_what_it_has(tmp_path: Path) -> None:
    """After its last scrape the figure stands."""
    series = {ledger(): "1+0.5x20 stale"}
    check(tmp_path, spent(), series, between=(10, 60), expected={"{}": 5})
    check(tmp_path, spent(by="team"), series, between=(10, 60), expected={'{team="t"}': 5})


def test_bars_begin_where_somebody_looked(tmp_path: Path) -> None:
    """The first scrape of an old ledger is no spend; the first dollar of a new one is."""
    old = {build(): "_x9 1x20", ledger(): "_x9 8x20"}
    check(tmp_path, spent_bar(by="$by"), old, between=(5, 15), expected={})
    new = {build(): "1x40", ledger(): "_x9 8x20"}
    check(tmp_path, spent_bar(by="$by"), new, between=(5, 15), expected={'{team="t"}': 8})


def test_the_start_is_known_or_not(tmp_path: Path) -> None:
    """It is where the gateway was scraped at the range's start, or within six hours before."""
    known = start_is_known()
    check(tmp_path, known, {build(): "1x40"}, between=(10, 30), expected={"{}": 1})
    check(tmp_path, known, {build(): "_x20 1x20"}, between=(10, 30), expected={"{}": 0})
    check(tmp_path, known, {build(): "1x20 stale _x200 1x40"}, between=(180, 240), expected={"{}": 1})


def test_a_counters_first_count_is_one(tmp_path: Path) -> None:
    """A series that begins within the range counts from 0, one that was there before from what it had."""
    unpriced = 'fal_gateway_unpriced_requests_total{job="gw",instance="a",endpoint="%s"}'
    series = {unpriced % "new": "_x15 2x15", unpriced % "old": "5x40"}
    expected = {'{endpoint="new"}': 2.0, '{endpoint="old"}': 0.0}
    expr = counted("unpriced_requests_total", "endpoint", by="endpoint")
    check(tmp_path, expr, series, between=(10, 30), expected=expected)


def test_a_gateway_that_drains_is_not_infinitely_full(tmp_path: Path) -> None:
    """While its last exchanges end it has no ready worker and a limit of 0: it is left out."""
    gauge = 'fal_gateway_inflight_%s{namespace="prod",job="gw",instance="%s"}'
    series = {gauge % ("requests", "a"): "3x20", gauge % ("limit", "a"): "0x20"}
    series |= {gauge % ("requests", "b"): "3x20", gauge % ("limit", "b"): "4x20"}
    check(tmp_path, USED, series, between=(10, 20), expected={'{instance="b"}': 0.75})
