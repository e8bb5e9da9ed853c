"""The state of one gateway: quotas and slots in memory that its workers share, exact across them.

The memory is made before the first fork and outlives every worker: one that is started again finds what its
predecessor consumed, and the supervisor frees the slots that it held. Time is the machine's monotonic clock, which no
administrator can set. With several workers each judgement holds a record lock, because that one dies with its holder;
a single worker needs none.
"""

from __future__ import annotations

import fcntl
import os
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from gateway.platform.shared_table import TAT, SharedTable, digest_of_name
from gateway.policy.budget import Calendar
from gateway.policy.quota import BYTES, CONCURRENT, Decision, Limit
from gateway.state.memory.budgets import BudgetTable
from gateway.state.memory.worker_budgets import NoLines, WorkerBudgets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.policy.budget import Budget
    from gateway.state.interface import Acquire
    from gateway.state.memory.worker_budgets import Lines, Reservation, Shortfall

CONFIGURED_PLACES: Final = 32_768
ADDRESS_PLACES: Final = 65_536
_REACH: Final = 64
_ADDRESS_REACH: Final = 8
_TOLERANCE: Final = 1e-6  # of an interval: what sums of floats may be off by
_SLOT_RETRY_SECONDS: Final = 1.0
_NAMES_KEPT: Final = 65_536
_GRANTED: Final = Decision()
"""The verdict on who has no limits, and whose hold was granted; nobody writes into it."""


class RecordLock:
    """A lock between processes, which dies with its holder; none at all where there is one process only."""

    def __init__(self, *, is_needed: bool) -> None:
        self._fd: Final = os.memfd_create("quotas") if is_needed else -1

    def __enter__(self) -> None:
        if self._fd >= 0:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give its descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)


class Quotas:
    """The memory itself: made by the supervisor, for so many workers (slots)."""

    def __init__(
        self, *, slots: int = 1, places: int = CONFIGURED_PLACES, address_places: int = ADDRESS_PLACES
    ) -> None:
        self.configured: Final = SharedTable(places=places, slots=slots, reach=_REACH)
        self.addresses: Final = SharedTable(places=address_places, slots=slots, reach=_ADDRESS_REACH)
        self.purses: Final = BudgetTable(slots=slots)
        self.lock: Final = RecordLock(is_needed=slots > 1)
        self.purse_lock: Final = RecordLock(is_needed=slots > 1)
        self.slots: Final = slots

    def vacate(self, slot: int, end: int) -> None:
        """Free the slots of a worker that is gone, and count what it left, for the supervisor, once it has reaped it.

        `end`: where its journal ends.
        """
        with self.lock:
            self.configured.vacate(slot)
            self.addresses.vacate(slot)
        with self.purse_lock:
            self.purses.vacate(slot, end)

    def close(self) -> None:
        """Give this process's mapping and lock back."""
        self.configured.close()
        self.addresses.close()
        self.purses.close()
        self.lock.close()
        self.purse_lock.close()


class _Spot:
    """Where a limit is kept, and the moment to store there if the call being judged is granted (-1: nothing)."""

    __slots__ = ("digest", "place", "table", "tat")

    def __init__(self, table: SharedTable, place: int, digest: int) -> None:
        self.table = table
        self.place = place
        self.digest = digest
        self.tat = -1.0

    def is_given_up(self) -> bool:
        """Return whether another name has taken the place over."""
        return self.table.digest_at(self.place) != self.digest


class LocalStore:
    """`Store` of one worker over `Quotas`."""

    def __init__(
        self,
        quotas: Quotas,
        *,
        slot: int = 0,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
        lines: Lines | None = None,
    ) -> None:
        """Take the shared memory, which worker this is, a clock in seconds that all workers share, and the calendar's.

        `wall` gives seconds since the epoch: periods of budgets begin by the calendar. `lines`: the worker's journal.
        """
        self._calendar = Calendar()
        self._wall = wall
        self._quotas = quotas
        self._holdings = WorkerBudgets(
            quotas.purses, slot, quotas.purse_lock, is_alone=quotas.slots == 1, lines=lines or NoLines()
        )
        self._slot = slot
        self._clock = clock
        self._lock = quotas.lock
        self._spots: dict[str, _Spot] = {}
        self._held: dict[str, list[_Spot]] = {}

    def ask(self, ask: Acquire, told: Callable[[Decision | None], None]) -> Decision | None:  # noqa: ARG002 (never later)
        """Judge and take in one step, at once."""
        if ask.limits.limits:
            with self._lock:
                return self._judge(ask)
        lack = self._take_hold(ask.hold) if ask.hold is not None else None
        return _GRANTED if lack is None else _refusal(Decision(), lack)

    def _judge(self, ask: Acquire) -> Decision:
        now = self._clock()
        verdict = Decision()
        spots: list[_Spot] = []
        for rank, limit in enumerate(ask.limits.limits):
            spot = self._find(limit, ask.address)
            spot.tat = -1.0
            if limit.kind == CONCURRENT:
                _judge_slots(limit, spot, verdict, rank)
            else:
                _judge_rate(limit, spot, verdict, rank, now=now)
            spots.append(spot)
        if not verdict.granted:
            return verdict
        lack = self._take_hold(ask.hold) if ask.hold is not None else None
        if lack is not None:
            return _refusal(verdict, lack)
        ask.spared = verdict.shadowed
        self._take(ask, spots)
        return verdict

    def _take_hold(self, hold: Reservation) -> Shortfall | None:
        wall = self._wall()
        return self._holdings.take(hold, [self._calendar.start(budget.period, wall) for budget in hold.budgets])

    def _find(self, limit: Limit, address: str) -> _Spot:
        name = f"{limit.store_name}|{address}" if address else limit.store_name
        spot = self._spots.get(name)
        if spot is not None and not spot.is_given_up():
            return spot
        table = self._quotas.addresses if address else self._quotas.configured
        digest = spot.digest if spot is not None else digest_of_name(name)
        if len(self._spots) >= _NAMES_KEPT:
            self._spots.clear()
        # A new one: whoever holds a slot at the old place must not free one at the new.
        spot = self._spots[name] = _Spot(table, table.find(digest), digest)
        return spot

    def _take(self, ask: Acquire, spots: list[_Spot]) -> None:
        held: list[_Spot] = []
        for rank, limit in enumerate(ask.limits.limits):
            spot = spots[rank]
            if spot.tat < 0.0:
                continue
            if limit.kind == CONCURRENT:
                spot.table.hold(spot.place, self._slot, 1)
                held.append(spot)
            else:
                spot.table.moments[spot.place + TAT] = spot.tat
        if held:
            self._held[ask.lease] = held

    def release(self, ask: Acquire) -> None:
        """Free the slots of a granted ask."""
        for spot in self._held.pop(ask.lease, ()):
            if not spot.is_given_up():
                spot.table.hold(spot.place, self._slot, -1)

    def undo(self, ask: Acquire) -> None:
        """Give back what a granted ask took."""
        self.release(ask)
        self._shift(ask, requests=-1, count=0)
        if ask.hold is not None:
            self.settle(ask.hold, 0)

    def record(self, hold: Reservation) -> None:
        """Take what a run holds as written down."""
        self._holdings.record(hold)

    def settle(self, hold: Reservation, spent_ns: int) -> None:
        """Turn what a run holds into what it cost."""
        self._holdings.settle(hold, spent_ns)

    def bind(self, hold: Reservation) -> None:
        """Hand what a run holds over to a queue job."""
        self._holdings.bind(hold)

    def settle_job(self, purses: Sequence[tuple[Budget, int]], *, freed_ns: int, spent_ns: int) -> None:
        """Free what a job holds, and count what it cost."""
        self._holdings.settle_job(purses, freed_ns=freed_ns, spent_ns=spent_ns)

    def write(self) -> None:
        """Let the other processes see what became of budgets: at the end of each turn, before anything is sent."""
        self._holdings.write()

    def charge(self, ask: Acquire, count: int) -> None:
        """Count bytes."""
        self._shift(ask, requests=0, count=count)

    def _shift(self, ask: Acquire, *, requests: int, count: int) -> None:
        with self._lock:
            now = self._clock()
            for rank, limit in enumerate(ask.limits.limits):
                units = count if limit.kind == BYTES else requests
                if units and limit.kind != CONCURRENT and rank not in ask.spared:
                    found = self._find(limit, ask.address)
                    cell = found.place + TAT
                    tat = max(float(found.table.moments[cell]), now) + units * limit.interval
                    # An upload far beyond its quota is paid for by one window more, not by years.
                    found.table.moments[cell] = min(tat, now + limit.span + limit.window)


def _refusal(verdict: Decision, lack: Shortfall) -> Decision:
    verdict.granted = False
    verdict.over_budget, verdict.used_ns, verdict.begun_at = lack.rank, lack.used_ns, lack.start
    return verdict


def _judge_slots(limit: Limit, spot: _Spot, verdict: Decision, rank: int) -> None:
    left = limit.burst - spot.table.held(spot.place)
    verdict.waits.append(-1.0)
    if left > 0:
        spot.tat = 0.0
        verdict.remaining.append(left - 1)
    else:
        _refuse(limit, verdict, rank, retry_after=_SLOT_RETRY_SECONDS)


def _judge_rate(limit: Limit, spot: _Spot, verdict: Decision, rank: int, *, now: float) -> None:
    interval, span = limit.interval, limit.span
    ahead = float(spot.table.moments[spot.place + TAT]) - now
    if ahead < 0.0:
        ahead = 0.0
    elif limit.kind != BYTES and ahead > span + limit.max_wait:  # of a larger bucket, before a reload
        ahead = span + limit.max_wait
    wait = ahead + interval - span
    if wait > interval * _TOLERANCE:
        if wait > limit.max_wait:
            _refuse(limit, verdict, rank, retry_after=wait)
            verdict.waits.append(wait)
            return
        if not limit.shadow:  # it makes nobody wait
            verdict.delay = max(verdict.delay, wait)
    if limit.kind != BYTES:  # bytes are asked for before any has passed: nothing is taken yet
        ahead += interval
    left = int(max(0.0, (span - ahead) / interval + _TOLERANCE))
    spot.tat = now + ahead
    verdict.remaining.append(left)
    verdict.waits.append(ahead if limit.kind == BYTES else ahead - (limit.burst - left - 1) * interval)


def _refuse(limit: Limit, verdict: Decision, rank: int, *, retry_after: float) -> None:
    verdict.remaining.append(0)
    if limit.shadow:
        verdict.shadowed.append(rank)
        return
    verdict.granted = False
    if verdict.refused_by < 0:
        verdict.refused_by = rank
    verdict.retry_after = max(verdict.retry_after, retry_after)
