"""The counter memory of one process: int64 cells, and a directory that says which series each cell belongs to.

The decision: a region is anonymous shared memory made before the fork, written by one process (the one that holds
the slot, see `scoreboard`) and read by the ops process at a scrape. An increment is a load and a store of an aligned
int64, 60 ns against 8 us for a straightforward prometheus_client call, and it needs no lock because
nobody else writes. A worker that is killed loses no count: its successor reads the directory and counts on.

Exemplars of what is counted have a memory of their own (`exemplars`).

Layout, all of it here: one int64 (bytes of the directory in use), the directory (an `AppendLog`), the cells. The memory
is committed by the kernel page by page as it is touched, so generous bounds cost nothing until they are used.
"""

from __future__ import annotations

import mmap
from typing import Final, NamedTuple

import orjson

from gateway.platform.append_log import AppendLog
from gateway.telemetry.metrics.exemplars import Exemplars

CELLS: Final = 65_536
DIRECTORY_BYTES: Final = 8 << 20
SPARE_CELLS: Final = 4_096
SPARE_DIRECTORY_BYTES: Final = 1 << 20
"""Kept back for the overflow series, so that a full region still counts (see `metrics.Family.overflow`)."""

VOID: Final = -(2**63)
"""In a gauge's cell: there is nothing to tell any more, and its series is not shown."""

_CELL_BYTES: Final = 8

Labels = tuple[str, ...]


class RegionFullError(Exception):
    """Not even an overflow series has room: (family, labels)."""


class Series(NamedTuple):
    """Where one series lives: its family's name, its label values, its first cell, and how many cells it has."""

    family: str
    labels: Labels
    first: int
    width: int


class Region:
    """The cells of one process, and the directory of its series."""

    def __init__(self, *, cells: int = CELLS, directory_bytes: int = DIRECTORY_BYTES) -> None:
        """Make the memory: `cells` int64, and a directory of `directory_bytes` (a multiple of 8)."""
        behind_directory = _CELL_BYTES + directory_bytes
        self._memory = mmap.mmap(-1, behind_directory + cells * _CELL_BYTES)
        self._whole = memoryview(self._memory)
        self.cells = self._whole[behind_directory:].cast("q")
        self._roll = AppendLog(self._whole[:_CELL_BYTES].cast("q"), self._whole[_CELL_BYTES:behind_directory])
        self.exemplars: Final = Exemplars()
        self._series: list[Series] = []
        self._firsts: dict[tuple[str, Labels], int] = {}
        self._offset = 0
        self._next = 0

    def attach(self) -> None:
        """Become the region's writer: learn every series that this slot's earlier processes left."""
        self.series()

    def claim(self, family: str, labels: Labels, *, width: int = 1) -> int | None:
        """Return the first cell of a series, new ones at zero; None where only the spare part is left."""
        first = self._firsts.get((family, labels))
        if first is not None:
            return first
        if self._next + width + SPARE_CELLS > len(self.cells):
            return None
        return self._place(family, labels, width=width, leave_free_bytes=SPARE_DIRECTORY_BYTES)

    def claim_spare(self, family: str, labels: Labels, *, width: int = 1) -> int:
        """Return the first cell of an overflow series, out of the part that is kept back for them.

        Raises RegionFullError past that, which takes more closed label values than are declared: a bug.
        """
        first = self._firsts.get((family, labels))
        if first is None and self._next + width <= len(self.cells):
            first = self._place(family, labels, width=width, leave_free_bytes=0)
        if first is None:
            raise RegionFullError(family, labels)
        return first

    def _place(self, family: str, labels: Labels, *, width: int, leave_free_bytes: int) -> int | None:
        entry = orjson.dumps((family, self._next, width, [_clean(label) for label in labels]))
        if not self._roll.append(entry, leave_free_bytes=leave_free_bytes):
            return None
        self.series()
        return self._firsts.setdefault((family, labels), self._series[-1].first)

    def series(self) -> list[Series]:
        """Return all series known by now, also to a reader in another process; new ones come at the end."""
        entries, self._offset = self._roll.read(self._offset)
        for entry in entries:
            family, first, width, labels = orjson.loads(entry)
            self._series.append(Series(family, tuple(labels), first, width))
            self._firsts[family, tuple(labels)] = first
            self._next = first + width
        return self._series

    def values(self, series: Series) -> list[int]:
        """Return the cells of a series as they stand; other processes may be counting meanwhile."""
        return self.cells[series.first : series.first + series.width].tolist()

    def zero(self, family: str) -> None:
        """Set a gauge family to zero: what it told went away with the process that counted it."""
        for series in self.series():
            if series.family == family:
                self.cells[series.first : series.first + series.width] = memoryview(bytes(8 * series.width)).cast("q")

    def close(self) -> None:
        """Give this process's mapping back; nothing here may be used afterwards."""
        self._roll.release()
        self.cells.release()
        self._whole.release()
        self._memory.close()
        self.exemplars.close()


def _clean(label: str) -> str:
    """Return a label that UTF-8 can carry: one lone surrogate would break every later scrape."""
    return label.encode("utf-8", "replace").decode()
