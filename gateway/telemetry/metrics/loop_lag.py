"""What a worker says of itself a few times a second: how late its loop is, and how many connections it has.

The decision: sampled by a timer and never counted on a request's way. The lag is how much later than due the loop came
to the timer, so a call that holds the loop up for a second shows as one sample of a second.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from gateway.telemetry.metrics.families import CLIENT_CONNECTIONS, EVENT_LOOP_LAG, LAG_BUCKETS, UPSTREAM_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.telemetry.metrics.counters import Region

BEAT_SECONDS: Final = 0.25
_BEATS_A_COUNT: Final = 8
"""Beats from one count of connections to origins to the next: the kernel is asked about each, 1 us a connection."""

_SUM_CELL: Final = EVENT_LOOP_LAG.width - 1
_MICROSECONDS: Final = 1_000_000


class LoopLag:
    """Begun in the loop that it watches; `stop` is harmless when done twice."""

    def __init__(self, region: Region, *, callers: Callable[[], int], origins: Callable[[], int]) -> None:
        """Take the region of the worker's slot, and what counts open connections on either side."""
        self._cells = region.cells
        self._lag = region.claim_spare(EVENT_LOOP_LAG.name, (), width=EVENT_LOOP_LAG.width)
        self._callers, self._origins = callers, origins
        self._client_cell = region.claim_spare(CLIENT_CONNECTIONS.name, ())
        self._origin_cell = region.claim_spare(UPSTREAM_CONNECTIONS.name, ())
        self._loop = asyncio.get_running_loop()
        self._beats = 0
        self._due_at = self._loop.time() + BEAT_SECONDS
        self._timer = self._loop.call_at(self._due_at, self._beat)

    def _beat(self) -> None:
        now = self._loop.time()
        late = max(0.0, now - self._due_at)
        self._cells[self._lag + bisect_left(LAG_BUCKETS, late)] += 1
        self._cells[self._lag + _SUM_CELL] += int(late * _MICROSECONDS)
        self._cells[self._client_cell] = self._callers()
        if self._beats % _BEATS_A_COUNT == 0:
            self._cells[self._origin_cell] = self._origins()
        self._beats += 1
        self._due_at = now + BEAT_SECONDS
        self._timer = self._loop.call_at(self._due_at, self._beat)

    def stop(self) -> None:
        """Beat no more."""
        self._timer.cancel()
