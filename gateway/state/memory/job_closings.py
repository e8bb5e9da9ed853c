"""Which jobs each worker has closed whose lines may not be in its journal yet, kept where it outlives the worker.

The decision: a job is closed in the table that all workers share before its line is in the file, so that two results
settle it once. If the worker dies in between, or a full disk keeps the line in its memory, the ledger never hears of
it. So each closing is noted here first, with the place where its line will begin; whoever settles with the dead worker
opens those again that its journal does not reach. Once everything is in the file the notes begin again at the top: as a
rule there is one.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.state.memory.worker_budgets import Lines

CLOSINGS: Final = 16_384
"""As many lines as wait in a worker's memory while the disk is full, about; the oldest notes give way."""

_CELLS: Final = 4  # of a note: the digest's two halves, the state before, where the line begins
_DIGEST: Final = struct.Struct("<qq")


class JobClosings:
    """The notes of all workers: made before the first fork, written by workers, read by the supervisor."""

    def __init__(self, *, slots: int, closings: int = CLOSINGS) -> None:
        self._closings = closings
        self._seat_cells = 1 + closings * _CELLS
        self._memory = mmap.mmap(-1, slots * self._seat_cells * 8)
        self._cells = memoryview(self._memory).cast("q")

    def note(self, slot: int, digest: bytes, state: int, lines: Lines) -> None:
        """Note that a job, which was in that state, is about to be closed; its line is the next that is appended."""
        first = slot * self._seat_cells
        count = 0 if lines.reach == lines.end else self._cells[first]
        at = first + 1 + count % self._closings * _CELLS
        self._cells[at], self._cells[at + 1] = _DIGEST.unpack(digest)
        self._cells[at + 2] = state
        self._cells[at + 3] = lines.end
        self._cells[first] = count + 1

    def conclude(self, slot: int, end: int) -> Iterator[tuple[bytes, int]]:
        """Yield (digest, state before) of what a dead worker closed and its journal, ending there, does not tell."""
        first = slot * self._seat_cells
        count, self._cells[first] = self._cells[first], 0
        for number in range(max(0, count - self._closings), count):
            at = first + 1 + number % self._closings * _CELLS
            if self._cells[at + 3] >= end:
                yield _DIGEST.pack(self._cells[at], self._cells[at + 1]), int(self._cells[at + 2])

    def close(self) -> None:
        """Give this process's mapping back."""
        self._cells.release()
        self._memory.close()
