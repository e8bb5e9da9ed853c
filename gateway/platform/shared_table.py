"""A table of numbers in memory that all workers share: for each name a moment, and what each worker holds.

Names are known by 62 bits of their digest and found by probing. The table is bounded: where no place is free within
reach, the one is taken that has rested longest and where nothing is held. What was forgotten so was full again, or the
table is too small for what comes; addresses of strangers have a table of their own, so they push out nobody but each
other.
Nothing here locks: whoever writes a moment or a number holds the store's lock, and what a worker holds has one writer,
that worker.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from array import array
from typing import Final

_CELL_BYTES: Final = 8
TAT: Final = 1
NUMBERS: Final = 2
"""Layout of a place: digest (0: free), moment, numbers of all workers, then columns of one cell for each slot; the
first of these is what each slot holds."""


class SharedTable:
    """The table. A place is told by the index of its first cell; `moments[place + TAT]` is in seconds.

    `cells` is the same memory as int64: `numbers` of them from `place + NUMBERS` on, then those of the slots, from
    `place + first_seat` on, column by column.
    """

    def __init__(  # noqa: PLR0913 (the shape of a table, by name)
        self, *, places: int, slots: int, reach: int, numbers: int = 0, columns: int = 1, shown: int = 1
    ) -> None:
        """Make the memory for so many places, before the first fork; `reach`: how many are probed for a name.

        `shown`: how many columns of the slots are in a `row`.
        """
        self.first_seat: Final = NUMBERS + numbers
        self._slots: Final = slots
        self._width: Final = NUMBERS + numbers + slots * columns
        self._places: Final = places
        self._reach: Final = min(reach, places)
        self._row: Final = struct.Struct(f"{self.first_seat + slots * shown}q")  # native: each cell is read at once
        self._memory = mmap.mmap(-1, places * self._width * _CELL_BYTES)
        self._whole = memoryview(self._memory)
        self.cells = self._whole.cast("q")
        self.moments = self._whole.cast("d")

    def digest_at(self, place: int) -> int:
        """Return whose place it is now."""
        return int(self.cells[place])

    def row(self, place: int) -> tuple[int, ...]:
        """Return the cells of a place, up to the columns that are shown: one read for what would be one each."""
        return self._row.unpack_from(self._whole, place * _CELL_BYTES)

    def find(self, digest: int) -> int:
        """Return the place of a name, a new one where it has none. Under the store's lock."""
        width = self._width
        index = digest % self._places
        idlest, idlest_tat = -1, 0.0
        for _ in range(self._reach):
            place = index * width
            found = int(self.cells[place])
            if found == digest:
                return place
            if found == 0:
                idlest = place
                break
            tat = float(self.moments[place + TAT])
            if (idlest < 0 or tat < idlest_tat) and self.held(place) == 0:
                idlest, idlest_tat = place, tat
            index = index + 1 if index + 1 < self._places else 0
        if idlest < 0:  # something is held at every place within reach: the first of them is given up
            idlest = digest % self._places * width
        self._clear(idlest, digest)
        return idlest

    def look(self, digest: int) -> int:
        """Return the place of a name, -1 where it has none; makes none, and so needs no lock."""
        index = digest % self._places
        for _ in range(self._reach):
            place = index * self._width
            found = int(self.cells[place])
            if found == digest:
                return place
            if found == 0:
                return -1
            index = index + 1 if index + 1 < self._places else 0
        return -1

    def _clear(self, place: int, digest: int) -> None:
        for cell in range(place + TAT, place + self._width):
            self.moments[cell] = 0.0
        self.cells[place] = digest

    def held(self, place: int) -> int:
        """Return what all workers hold at a place."""
        cells, held = self.cells, 0
        for cell in range(place + self.first_seat, place + self.first_seat + self._slots):
            held += int(cells[cell])
        return held

    def hold(self, place: int, slot: int, change: int) -> None:
        """Add to what one worker holds at a place; never below 0."""
        cell = place + self.first_seat + slot
        held = int(self.cells[cell]) + change
        self.cells[cell] = max(0, held)

    def drop(self, place: int) -> None:
        """Give up what all workers hold at a place, and all else in their columns."""
        for cell in range(place + self.first_seat, place + self._width):
            self.cells[cell] = 0

    def taken(self) -> list[int]:
        """Return the places that have a name."""
        return [place for place in range(0, len(self.cells), self._width) if self.cells[place]]

    def vacate(self, slot: int) -> None:
        """Give up all that a worker holds which is gone."""
        self.cells[self.first_seat + slot :: self._width] = memoryview(array("q", bytes(self._places * _CELL_BYTES)))

    def close(self) -> None:
        """Give this process's mapping back."""
        self.moments.release()
        self.cells.release()
        self._whole.release()
        self._memory.close()


def digest_of_name(name: str) -> int:
    """Return 62 bits that stand for a name; never 0. One more, and compiled code would need an object for it."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 2 or 1
