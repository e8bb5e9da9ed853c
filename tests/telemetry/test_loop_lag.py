"""What a worker says of itself: how late its loop came, and its connections on both sides."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway.telemetry.metrics.exposition import sum_series
from gateway.telemetry.metrics.families import LAG_BUCKETS
from gateway.telemetry.metrics.loop_lag import BEAT_SECONDS, LoopLag

if TYPE_CHECKING:
    from gateway.telemetry.metrics.counters import Region
    from gateway.telemetry.metrics.scoreboard import Scoreboard

HELD_SECONDS = 1.2


def _lag(region: Region) -> list[int]:
    return sum_series([region])["event_loop_lag_seconds"][()]


def _heard(beats: asyncio.Queue[int]) -> int:
    """Tell a beat; return how many callers are connected."""
    beats.put_nowait(0)
    return 7


def test_a_loop_that_is_held_up_shows(scoreboard: Scoreboard) -> None:
    """A call that takes over a second makes one sample of about that, whatever the others are; then no more come."""
    region = scoreboard.workers[0].region

    async def live() -> None:
        beats = asyncio.Queue[int]()
        pulse = LoopLag(region, callers=lambda: _heard(beats), origins=lambda: 3)
        await beats.get()
        time.sleep(HELD_SECONDS)  # noqa: ASYNC251 (that is what is measured)
        await beats.get()
        pulse.stop()
        pulse.stop()
        told = sum(_lag(region)[:-1])
        await asyncio.sleep(BEAT_SECONDS * 2)
        assert sum(_lag(region)[:-1]) == told

    asyncio.run(live())
    *counts, microseconds = _lag(region)
    least = LAG_BUCKETS.index(0.5)  # it was held from somewhere within a beat on
    assert sum(counts[least + 1 :]) >= 1
    assert microseconds >= (HELD_SECONDS - BEAT_SECONDS) * 1e6
    sums = sum_series([region])
    assert (sums["client_connections"], sums["upstream_connections"]) == ({(): [7]}, {(): [3]})


def test_connections_end_with_their_process(scoreboard: Scoreboard) -> None:
    """A worker that was killed has none; what was counted of its loop stays."""
    slot = scoreboard.workers[0]

    async def live() -> None:
        beats = asyncio.Queue[int]()
        pulse = LoopLag(slot.region, callers=lambda: _heard(beats), origins=lambda: 3)
        await beats.get()
        pulse.stop()

    asyncio.run(live())
    slot.vacate()
    sums = sum_series([slot.region])
    assert (sums["client_connections"], sums["upstream_connections"]) == ({(): [0]}, {(): [0]})
    assert sum(_lag(slot.region)[:-1]) == 1
