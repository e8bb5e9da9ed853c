"""The counter memory: series keep their cells across processes and deaths, and its bounds hold."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.telemetry.metrics.counters import SPARE_CELLS, Region, RegionFullError, Series

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.telemetry.conftest import Fork, Say


@pytest.fixture
def region() -> Iterator[Region]:
    """Return a region with room for ten cells before the spare part."""
    made = Region(cells=SPARE_CELLS + 10, directory_bytes=2 << 20)
    yield made
    made.close()


def test_a_series_keeps_its_cell(region: Region) -> None:
    """The same family and labels are the same cell; others get one of their own, behind the width of the first."""
    first = region.claim("sizes", ("a",), width=3)
    assert [first, region.claim("sizes", ("b",)), region.claim("sizes", ("a",), width=3)] == [0, 3, 0]


def test_another_process_reads_what_one_counts(region: Region, fork: Fork) -> None:
    """A reader learns series that were made after the fork, with their counts."""

    def count(_say: Say) -> None:
        region.attach()
        cell = region.claim("seen_total", ("x",))
        assert cell is not None
        region.cells[cell] += 7

    assert fork(count).exit_status() == 0
    assert [(series, region.values(series)) for series in region.series()] == [
        (Series("seen_total", ("x",), 0, 1), [7])
    ]


def test_counts_outlive_a_killed_writer(region: Region, fork: Fork) -> None:
    """After a SIGKILL the successor finds the series in the same cell and counts on."""

    def count_and_hang(say: Say) -> None:
        region.attach()
        region.claim("other_total", ())
        region.cells[region.claim("seen_total", ("x",)) or 0] += 5
        say(b"counted")
        signal.pause()

    child = fork(count_and_hang)
    assert child.heard() == b"counted"
    child.kill()
    assert child.exit_status() == -signal.SIGKILL
    region.attach()
    region.cells[region.claim("seen_total", ("x",)) or 0] += 1
    assert region.values(region.series()[1]) == [6]


def test_a_full_region_keeps_its_spare_part(region: Region) -> None:
    """Claims end before the spare cells; those are there for overflow series alone, and they too have an end."""
    claimed = [region.claim("seen_total", (str(number),)) for number in range(12)]
    assert claimed == [*range(10), None, None]
    assert region.claim("seen_total", ("3",)) == 3
    assert region.claim_spare("seen_total", ("other",)) == 10
    assert region.claim_spare("seen_total", ("other",)) == 10
    with pytest.raises(RegionFullError):
        region.claim_spare("seen_total", ("wide",), width=SPARE_CELLS)


def test_a_full_directory_refuses_too() -> None:
    """Long labels use up the directory before the cells; the region says so and keeps what it has."""
    region = Region(directory_bytes=(1 << 20) + 4096)
    claimed = [region.claim("seen_total", (f"{number}{'x' * 1000}",)) for number in range(6)]
    assert claimed == [0, 1, 2, None, None, None]
    region.close()


def test_a_label_that_is_no_text_is_mended(region: Region) -> None:
    """A lone surrogate would break every later scrape; it is counted under a mended label, always the same cell."""
    assert region.claim("seen_total", ("a\udcff",)) == region.claim("seen_total", ("a\udcff",)) == 0
    assert [series.labels for series in region.series()] == [("a?",)]


def test_zero_is_for_one_family_alone(region: Region) -> None:
    """Zeroing a gauge leaves all other series as they are."""
    for family in ("gauge", "seen_total"):
        region.cells[region.claim(family, ("x",)) or 0] = 9
    region.zero("gauge")
    assert [region.values(series) for series in region.series()] == [[0], [9]]


def test_a_region_costs_what_it_uses() -> None:
    """The generous bounds are address space; a new region takes less than 256 KiB of memory."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    before = _resident_pages()
    region = Region()
    region.attach()
    region.claim("seen_total", ("x",))
    assert (_resident_pages() - before) * page_bytes < 256 << 10
    region.close()


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
