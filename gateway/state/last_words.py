"""What each worker has done to purses in the store, kept where it outlives the worker, for the store's ears.

The decision: a worker writes here what it states to the store (redis_registers.py), at the end of the turn, beside the
lines of its journal, and marked with the place where these end. What was here before is kept until they are in the
file. So where it is killed the ledger's process states in its name what the journal tells, and the budget counts what
the ledger counts, whatever the store had heard or granted before. So a worker has a word of each purse that it asks for
anything, from before the first time. A word is kept until it was told, or until its place is needed: those of the
longest silence go first, which are of the living as well, and cost nothing while these live.
"""

from __future__ import annotations

from functools import lru_cache
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.state.holdings import NEVER
from gateway.state.places import NUMBERS, TAT, Places, digest_of_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from contextlib import AbstractContextManager

    from gateway.state.holdings import Lines
    from gateway.state.redis_registers import Register

PLACES: Final = 8_192
_REACH: Final = 256
_SUMS: Final = 5  # of a word: those of the latest one begin at _START, those of the one before at _WAS
_PID, _BUDGET, _START = NUMBERS, NUMBERS + 1, NUMBERS + 2
_EDITION, _SPENT, _JOBS, _HELD = _START + 1, _START + 2, _START + 3, _START + 4
_END: Final = _START + _SUMS
_WAS: Final = _END + 1
_NUMBERS: Final = _WAS + _SUMS - NUMBERS


class LastWord(NamedTuple):
    """What a worker had to say of one budget's purse: sums of an edition, in nanodollars.

    `place` is where it stands, `budget` the digest of the budget's name; `held_ns` is of runs that are written down.
    `start` 0: it has asked, and nothing came of it yet.
    """

    place: int
    pid: int
    budget: int
    start: int
    edition: int
    spent_ns: int
    jobs_ns: int
    held_ns: int


class LastWords:
    """The table: made before the first fork, written by workers, read by the ledger's process."""

    def __init__(self, lock: AbstractContextManager[None], *, places: int = PLACES) -> None:
        """Take a lock that dies with its holder."""
        self._lock: Final = lock
        self._table: Final = Places(places=places, seats=0, reach=_REACH, numbers=_NUMBERS)

    def announce(self, pid: int, key: bytes) -> None:
        """Say that a process is about to ask for something of a purse, whose key in the store this is."""
        cells, budget = self._table.cells, digest_of_key(key)
        with self._lock:
            place = self._table.find(_digest(pid, budget))
            if cells[place + _PID] != pid:
                for cell in range(place + _START, place + NUMBERS + _NUMBERS):
                    cells[cell] = 0
                cells[place + _BUDGET] = budget
                cells[place + _PID] = pid
                self._table.moments[place + TAT] = time()

    def keep(self, pid: int, registers: Iterable[Register], lines: Lines) -> None:
        """Keep what a process has to say of purses; what it had to say before, until the journal tells of the rest."""
        cells = self._table.cells
        reach, end = lines.reach, lines.end
        with self._lock:
            for register in registers:
                budget = digest_of_key(register.key)
                place = self._table.find(_digest(pid, budget))
                if cells[place + _END] <= reach:
                    cells[place + _WAS : place + _WAS + _SUMS] = cells[place + _START : place + _END]
                cells[place + _END] = NEVER  # while it is changed, what was counts
                cells[place + _EDITION] = register.edition
                cells[place + _START] = register.start  # behind it: of which edition a word is that has this start
                cells[place + _SPENT] = register.spent
                cells[place + _JOBS] = register.jobs
                cells[place + _HELD] = register.recorded
                cells[place + _BUDGET] = budget
                cells[place + _PID] = pid
                cells[place + _END] = end
                self._table.moments[place + TAT] = time()

    def take_back(self, pid: int, registers: Iterable[Register]) -> None:
        """Let go of what a process says itself, as its last statement, after which the store forgets the process."""
        cells = self._table.cells
        with self._lock:
            for register in registers:
                place = self._table.look(_digest(pid, digest_of_key(register.key)))
                if place >= 0:
                    cells[place + _PID] = 0

    def conclude(self, pid: int, end: int) -> None:
        """Take what a dead process had to say back to what its journal tells, which ends there."""
        cells = self._table.cells
        with self._lock:
            for place in self._table.taken():
                if cells[place + _PID] == pid and cells[place + _END] > end:
                    self._take_back_to_before(place)
                    cells[place + _END] = end

    def _take_back_to_before(self, place: int) -> None:
        cells = self._table.cells
        latest, before = cells[place + _START : place + _END], cells[place + _WAS : place + _WAS + _SUMS]
        if latest[0] == before[0] and latest[1] != before[1]:
            return  # the store was lost in that very turn: what there was in the old edition is in no other words
        if latest[0] == before[0]:
            cells[place + _START : place + _END] = before
        else:
            cells[place + _SPENT] = cells[place + _JOBS] = cells[place + _HELD] = 0

    def of_dead(self, living: Collection[int]) -> list[LastWord]:
        """Return what processes had to say that are no more."""
        cells = self._table.cells
        with self._lock:
            dead = [place for place in self._table.taken() if cells[place + _PID] and cells[place + _PID] not in living]
            return [LastWord(place, *cells[place + NUMBERS : place + _END].tolist()) for place in dead]

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


class Will:
    """One worker's end of the table. `lines`: its journal."""

    def __init__(self, words: LastWords, pid: int, lines: Lines) -> None:
        self._words: Final = words
        self._pid: Final = pid
        self._lines: Final = lines

    def announce(self, key: bytes) -> None:
        """Say that this process is about to ask for something of a purse."""
        self._words.announce(self._pid, key)

    def keep(self, registers: Iterable[Register]) -> None:
        """Keep what this process has to say, whose lines are appended by now."""
        self._words.keep(self._pid, registers, self._lines)

    def take_back(self, registers: Iterable[Register]) -> None:
        """Let go of what this process says itself as its last statement."""
        self._words.take_back(self._pid, registers)


@lru_cache(maxsize=PLACES)
def _digest(pid: int, budget: int) -> int:
    return digest_of_name(f"{pid}/{budget}")


@lru_cache(maxsize=PLACES)
def digest_of_key(key: bytes) -> int:
    """Return what stands for a budget, from its key in the store."""
    return digest_of_name(key.decode())
