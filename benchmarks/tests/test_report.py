"""Verdicts, report and picture say what the figures say."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from benchmarks.case import Extent
from benchmarks.catalog import catalog
from benchmarks.chart import draw
from benchmarks.goals import verdicts
from benchmarks.report import render
from benchmarks.results import Results, Spread, read_results, write_results

if TYPE_CHECKING:
    from pathlib import Path


def made_up(**per_cpu_second: list[float]) -> Results:
    """Return results of a run in which only small POSTs at 64 connections were measured."""
    results = Results({"cores": "2"}, {"date": "2026-11-22"}, left_out={"litellm": "it is not installed"})
    for label, values in per_cpu_second.items():
        results.row("posts-64", label).rounds.extend({"per_cpu_second": value} for value in values)
    return results


def test_a_figure_is_the_median_with_its_spread() -> None:
    """One wild round moves the edges and not the middle."""
    row = made_up(gateway=[10.0, 900.0, 11.0]).row("posts-64", "gateway")
    assert row.spread("per_cpu_second") == Spread(11.0, 10.0, 900.0)
    assert row.spread("unheard of") is None


@pytest.mark.parametrize(("aiohttp", "reached"), [(3.0, True), (3.1, False)])
def test_a_ratio_is_judged_at_its_limit(aiohttp: float, reached: bool) -> None:  # noqa: FBT001 (a table of tests)
    """Three times aiohttp is reached, a little less is not."""
    results = made_up(gateway=[9.0], aiohttp=[aiohttp])
    assert verdicts(results)[0].reached is reached


def test_what_was_not_measured_is_not_reached() -> None:
    """A goal without a figure is neither reached nor missed."""
    assert {verdict.reached for verdict in verdicts(made_up())} == {None}


def test_what_never_happens_misses_its_goal() -> None:
    """A leaving that the origin never sees is infinitely late."""
    results = made_up()
    results.row("leaving", "gateway").rounds.append({"waiting_seconds": math.inf})
    assert (verdicts(results)[-1].measured, verdicts(results)[-1].reached) == ("never", False)


def test_report_names_every_row_and_what_is_left_out() -> None:
    """Each system has its row, ratios are to the gateway's, failures and absences have a line."""
    results = made_up(gateway=[100.0], nginx=[400.0])
    results.row("posts-64", "express").failures.append("cut")
    report = render(results, catalog(Extent()))
    assert "| 4.00 |" in next(line for line in report.splitlines() if line.startswith("| nginx |"))
    assert "- express: cut" in report
    assert "**left out**: litellm, it is not installed" in report


def test_picture_is_well_formed_and_has_the_figures() -> None:
    """The picture parses as XML and shows the medians."""
    picture = draw(made_up(gateway=[1234.0], nginx=[4000.0]))
    ET.fromstring(picture)  # noqa: S314 (our own)
    assert "1,234" in picture
    assert "not measured" in picture


def test_figures_survive_being_written(tmp_path: Path) -> None:
    """A run read back is the run that was written, infinity too."""
    results = made_up(gateway=[1.0, math.inf])
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results
