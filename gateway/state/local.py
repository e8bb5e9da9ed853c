"""The state of one gateway: quotas and slots in memory that its workers share, exact across them.

The memory is made before the first fork and outlives every worker: one that is started again finds what its
predecessor consumed, and the supervisor frees the slots that it held. Time is the machine's monotonic clock, which no
administrator can set. With several workers each judgement holds a record lock, because that one dies with its holder;
a single worker needs none.
"""

from __future__ import annotations

import fcntl
import os
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.policy.quota import BYTES, CONCURRENT, Limit, Verdict
from gateway.state.places import TAT, Places, digest_of_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.state.store import Ask

CONFIGURED_PLACES: Final = 32_768
ADDRESS_PLACES: Final = 65_536
_REACH: Final = 64
_ADDRESS_REACH: Final = 8
_TOLERANCE: Final = 1e-6  # of an interval: what sums of floats may be off by
_SLOT_RETRY_SECONDS: Final = 1.0
_NAMES_KEPT: Final = 65_536


class Quotas:
    """The memory itself: made by the supervisor, for so many workers (seats)."""

    def __init__(
        self, *, seats: int = 1, places: int = CONFIGURED_PLACES, address_places: int = ADDRESS_PLACES
    ) -> None:
        self.configured: Final = Places(places=places, seats=seats, reach=_REACH)
        self.addresses: Final = Places(places=address_places, seats=seats, reach=_ADDRESS_REACH)
        self.lock: Final = os.memfd_create("quotas") if seats > 1 else -1

    def vacate(self, seat: int) -> None:
        """Free the slots of a worker that is gone; for the supervisor, once it has reaped it."""
        self.configured.vacate(seat)
        self.addresses.vacate(seat)

    def close(self) -> None:
        """Give this process's mapping and lock back."""
        self.configured.close()
        self.addresses.close()
        if self.lock >= 0:
            os.close(self.lock)


class _Judgement:
    """One limit's part in a verdict: where it is kept, and the moment to store if the call is granted."""

    __slots__ = ("digest", "limit", "place", "table", "tat")

    def __init__(self, limit: Limit, table: Places, place: int, digest: int) -> None:
        self.limit = limit
        self.table = table
        self.place = place
        self.digest = digest
        self.tat = -1.0  # nothing to be stored


class LocalStore:
    """`Store` of one worker over `Quotas`."""

    def __init__(self, quotas: Quotas, *, seat: int = 0, clock: Callable[[], float] = monotonic) -> None:
        """Take the shared memory, which worker this is, and a clock in seconds that all workers share."""
        self._quotas = quotas
        self._seat = seat
        self._clock = clock
        self._lock = quotas.lock
        self._digests: dict[str, int] = {}
        self._held: dict[str, list[_Judgement]] = {}

    def ask(self, ask: Ask, told: Callable[[Verdict | None], None]) -> Verdict | None:  # noqa: ARG002 (never later)
        """Judge and take in one step, at once."""
        if self._lock < 0:
            return self._judge(ask)
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            return self._judge(ask)
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _judge(self, ask: Ask) -> Verdict:
        now = self._clock()
        verdict = Verdict()
        judgements: list[_Judgement] = []
        for rank, limit in enumerate(ask.limits.limits):
            judgement = self._find(limit, ask.address)
            if limit.kind == CONCURRENT:
                _judge_slots(judgement, verdict, rank)
            else:
                _judge_rate(judgement, verdict, rank, now=now)
            judgements.append(judgement)
        if verdict.granted:
            self._take(ask, judgements)
        return verdict

    def _find(self, limit: Limit, address: str) -> _Judgement:
        name = f"{limit.store_name}|{address}" if address else limit.store_name
        digest = self._digests.get(name)
        if digest is None:
            digest = digest_of_name(name)
            if len(self._digests) >= _NAMES_KEPT:
                self._digests.clear()
            self._digests[name] = digest
        table = self._quotas.addresses if address else self._quotas.configured
        return _Judgement(limit, table, table.find(digest), digest)

    def _take(self, ask: Ask, judgements: list[_Judgement]) -> None:
        held = []
        for judgement in judgements:
            if judgement.tat < 0.0:
                continue
            if judgement.limit.kind == CONCURRENT:
                judgement.table.hold(judgement.place, self._seat, 1)
                held.append(judgement)
            else:
                judgement.table.moments[judgement.place + TAT] = judgement.tat
        if held:
            self._held[ask.lease] = held

    def release(self, ask: Ask) -> None:
        """Free the slots of a granted ask."""
        for judgement in self._held.pop(ask.lease, ()):
            if judgement.table.digest_at(judgement.place) == judgement.digest:  # else it was given up to another
                judgement.table.hold(judgement.place, self._seat, -1)

    def undo(self, ask: Ask) -> None:
        """Give back what a granted ask took."""
        self.release(ask)
        self._shift(ask, requests=-1, count=0)

    def charge(self, ask: Ask, count: int) -> None:
        """Count bytes."""
        self._shift(ask, requests=0, count=count)

    def _shift(self, ask: Ask, *, requests: int, count: int) -> None:
        if self._lock >= 0:
            fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            now = self._clock()
            for limit in ask.limits.limits:
                units = count if limit.kind == BYTES else requests
                if units and limit.kind != CONCURRENT:
                    found = self._find(limit, ask.address)
                    cell = found.place + TAT
                    tat = max(float(found.table.moments[cell]), now) + units * limit.interval
                    # An upload far beyond its quota is paid for by one window more, not by years.
                    found.table.moments[cell] = min(tat, now + limit.span + limit.window)
        finally:
            if self._lock >= 0:
                fcntl.lockf(self._lock, fcntl.LOCK_UN)


def _judge_slots(judgement: _Judgement, verdict: Verdict, rank: int) -> None:
    limit = judgement.limit
    left = limit.burst - judgement.table.slots(judgement.place)
    verdict.waits.append(-1.0)
    if left > 0:
        judgement.tat = 0.0
        verdict.remaining.append(left - 1)
    else:
        _refuse(limit, verdict, rank, retry_after=_SLOT_RETRY_SECONDS)


def _judge_rate(judgement: _Judgement, verdict: Verdict, rank: int, *, now: float) -> None:
    limit = judgement.limit
    interval, span = limit.interval, limit.span
    ahead = float(judgement.table.moments[judgement.place + TAT]) - now
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
        verdict.delay = max(verdict.delay, wait)
    if limit.kind != BYTES:  # bytes are asked for before any has passed: nothing is taken yet
        ahead += interval
    left = int(max(0.0, (span - ahead) / interval + _TOLERANCE))
    judgement.tat = now + ahead
    verdict.remaining.append(left)
    verdict.waits.append(ahead if limit.kind == BYTES else ahead - (limit.burst - left - 1) * interval)


def _refuse(limit: Limit, verdict: Verdict, rank: int, *, retry_after: float) -> None:
    verdict.remaining.append(0)
    if limit.shadow:
        verdict.shadowed.append(rank)
        return
    verdict.granted = False
    if verdict.refused_by < 0:
        verdict.refused_by = rank
    verdict.retry_after = max(verdict.retry_after, retry_after)
