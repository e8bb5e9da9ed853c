"""A table of numbers in memory that all workers share: for each name a moment, and how many slots each worker holds.

Names are known by 62 bits of their digest and found by probing. The table is bounded: where no place is free within
reach, the one takes over that has rested longest and holds no slot. What was forgotten so was full again, or the table
is too small for what comes; addresses of strangers have a table of their own, so they push out nobody but each other.
Nothing here locks: whoever writes a moment holds the store's lock, and a slot count has one writer, its worker.
"""

from __future__ import annotations

import hashlib
import mmap
from array import array
from typing import Final

_CELL_BYTES: Final = 8
_DIGEST, _TAT, SLOTS = 0, 1, 2
"""Layout of a place: digest (0: free), moment, then a slot count for each seat."""

TAT: Final = _TAT


class Places:
    """The table. A place is told by the index of its first cell; `moments[place + TAT]` is in seconds."""

    def __init__(self, *, places: int, seats: int, reach: int) -> None:
        """Make the memory for so many places, before the first fork; `reach`: how many are probed for a name."""
        self._width: Final = SLOTS + seats
        self._places: Final = places
        self._reach: Final = min(reach, places)
        self._memory = mmap.mmap(-1, places * self._width * _CELL_BYTES)
        self._whole = memoryview(self._memory)
        self._digests = self._whole.cast("q")
        self.moments = self._whole.cast("d")

    def digest_at(self, place: int) -> int:
        """Return whose place it is now."""
        return int(self._digests[place])

    def find(self, digest: int) -> int:
        """Return the place of a name, a new one where it has none. Under the store's lock."""
        width = self._width
        index = digest % self._places
        idlest, idlest_tat = -1, 0.0
        for _ in range(self._reach):
            place = index * width
            found = int(self._digests[place])
            if found == digest:
                return place
            if found == 0:
                idlest = place
                break
            tat = float(self.moments[place + _TAT])
            if (idlest < 0 or tat < idlest_tat) and self.slots(place) == 0:
                idlest, idlest_tat = place, tat
            index = index + 1 if index + 1 < self._places else 0
        if idlest < 0:  # every place within reach holds slots: the first of them is given up
            idlest = digest % self._places * width
        self._clear(idlest, digest)
        return idlest

    def _clear(self, place: int, digest: int) -> None:
        for cell in range(place + _TAT, place + self._width):
            self.moments[cell] = 0.0
        self._digests[place] = digest

    def slots(self, place: int) -> int:
        """Return how many slots all workers hold at a place."""
        held = 0
        for cell in range(place + SLOTS, place + self._width):
            held += int(self._digests[cell])
        return held

    def hold(self, place: int, seat: int, change: int) -> None:
        """Add to one worker's slots at a place."""
        cell = place + SLOTS + seat
        held = int(self._digests[cell]) + change
        self._digests[cell] = max(0, held)

    def vacate(self, seat: int) -> None:
        """Free all slots of a worker that is gone."""
        self._digests[SLOTS + seat :: self._width] = memoryview(array("q", bytes(self._places * _CELL_BYTES)))

    def close(self) -> None:
        """Give this process's mapping back."""
        self.moments.release()
        self._digests.release()
        self._whole.release()
        self._memory.close()


def digest_of_name(name: str) -> int:
    """Return 62 bits that stand for a name; never 0. One more, and compiled code would need an object for it."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 2 or 1
