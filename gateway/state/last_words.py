"""What each worker has done to purses in the store, kept where it outlives the worker, for the store's ears.

The decision: a worker writes here what it states to the store (redis_registers.py), at the end of the turn, beside the
lines of its journal. So where it is killed before the store has heard it, the ledger's process states it in its name,
and the budget counts what the ledger counts. A word is kept until it was told, or until its place is needed: those of
the longest silence go first, which are of the living as well, and cost nothing while these live.
"""

from __future__ import annotations

from functools import lru_cache
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.state.places import NUMBERS, TAT, Places, digest_of_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from contextlib import AbstractContextManager

    from gateway.state.redis_registers import Register

PLACES: Final = 8_192
_REACH: Final = 256
_PID, _BUDGET, _START, _EDITION, _SPENT, _JOBS, _NET = range(NUMBERS, NUMBERS + 7)
_NUMBERS: Final = 7


class LastWord(NamedTuple):
    """What a worker had to say of one budget's purse: registers of an edition, in nanodollars.

    `place` is where it stands, `budget` the digest of the budget's name.
    """

    place: int
    pid: int
    budget: int
    start: int
    edition: int
    spent_ns: int
    jobs_ns: int
    net_ns: int


class LastWords:
    """The table: made before the first fork, written by workers, read by the ledger's process."""

    def __init__(self, lock: AbstractContextManager[None], *, places: int = PLACES) -> None:
        """Take a lock that dies with its holder."""
        self._lock: Final = lock
        self._table: Final = Places(places=places, seats=0, reach=_REACH, numbers=_NUMBERS)

    def keep(self, pid: int, registers: Iterable[Register]) -> None:
        """Keep what a process has to say, in place of what it had to say of these purses before."""
        cells = self._table.cells
        with self._lock:
            for register in registers:
                budget = digest_of_key(register.key)
                place = self._table.find(_digest(pid, budget))
                cells[place + _START] = register.start
                cells[place + _EDITION] = register.edition
                cells[place + _SPENT] = register.spent  # before what is freed: a death between them loses nothing
                cells[place + _JOBS] = register.jobs
                cells[place + _NET] = register.net
                cells[place + _BUDGET] = budget
                cells[place + _PID] = pid
                self._table.moments[place + TAT] = time()

    def take_back(self, pid: int, registers: Iterable[Register]) -> None:
        """Let go of what a process says itself, as its last statement, after which the store forgets the process."""
        cells = self._table.cells
        with self._lock:
            for register in registers:
                place = self._table.look(_digest(pid, digest_of_key(register.key)))
                if place >= 0:
                    cells[place + _PID] = 0

    def of_dead(self, living: Collection[int]) -> list[LastWord]:
        """Return what processes had to say that are no more."""
        cells, width = self._table.cells, NUMBERS + _NUMBERS
        with self._lock:
            dead = [place for place in self._table.taken() if cells[place + _PID] and cells[place + _PID] not in living]
            return [LastWord(place, *cells[place + NUMBERS : place + width].tolist()) for place in dead]

    def forget(self, word: LastWord) -> None:
        """Let go of what was told."""
        cells = self._table.cells
        with self._lock:
            if cells[word.place + _PID] == word.pid and cells[word.place + _BUDGET] == word.budget:
                cells[word.place + _PID] = 0
                self._table.moments[word.place + TAT] = 0.0

    def close(self) -> None:
        """Give this process's mapping back."""
        self._table.close()


@lru_cache(maxsize=PLACES)
def _digest(pid: int, budget: int) -> int:
    return digest_of_name(f"{pid}/{budget}")


@lru_cache(maxsize=PLACES)
def digest_of_key(key: bytes) -> int:
    """Return what stands for a budget, from its key in the store."""
    return digest_of_name(key.decode())
