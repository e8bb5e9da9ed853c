"""Readiness is what the processes themselves have said, read out of shared memory."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from gateway.telemetry.metrics.scoreboard import Readiness, Scoreboard, State

if TYPE_CHECKING:
    from gateway.telemetry.metrics.meter import Meter
    from gateway.telemetry.record import ExchangeRecord
    from tests.telemetry.conftest import Fork, Say

STARTING, READY, DRAINING, STOPPED = State


@pytest.mark.parametrize(
    ("supervisor", "workers", "status"),
    [
        (STARTING, (STARTING, STARTING), "starting"),
        (STARTING, (STARTING, READY), "starting"),
        (READY, (READY, READY), "ready"),
        (READY, (STOPPED, READY), "ready"),
        (READY, (STOPPED, STARTING), "starting"),
        (READY, (DRAINING, READY), "ready"),
        (READY, (DRAINING, STOPPED), "draining"),
        (DRAINING, (READY, READY), "draining"),
        (STOPPED, (READY, READY), "draining"),
    ],
)
def test_readiness(scoreboard: Scoreboard, supervisor: State, workers: tuple[State, State], status: str) -> None:
    """One ready worker is enough once all was ready at the start, unless the supervisor drains."""
    scoreboard.supervisor.state = supervisor
    for slot, state in zip(scoreboard.workers, workers, strict=True):
        slot.state = state
    assert scoreboard.readiness() == Readiness(status, 0, workers.count(READY), 2)


def test_the_generation_is_the_one_all_ready_workers_have(scoreboard: Scoreboard) -> None:
    """During a reload the older one is told; a worker that is not ready has no say."""
    first, second = scoreboard.workers
    first.generation, second.generation = 3, 2
    assert scoreboard.generation() == 0
    first.state = READY
    assert scoreboard.generation() == 3
    second.state = READY
    assert scoreboard.generation() == 2
    first.state = second.state = State.DRAINING
    assert scoreboard.generation() == 2


def test_a_seat_is_taken_in_another_process(scoreboard: Scoreboard, fork: Fork) -> None:
    """What a worker writes at its slot is seen by everybody, and its death leaves the slot as it stood."""

    def work(say: Say) -> None:
        slot = scoreboard.workers[1]
        slot.take(os.getpid())
        slot.state, slot.generation = READY, 4
        say(b"ready")
        signal.pause()

    scoreboard.supervisor.state = READY
    child = fork(work)
    assert child.heard() == b"ready"
    slot = scoreboard.workers[1]
    assert (slot.pid, slot.state, slot.generation) == (child.pid, READY, 4)
    assert scoreboard.readiness() == Readiness("ready", 4, 1, 2)


def test_who_sits_down_has_marked_nothing(scoreboard: Scoreboard) -> None:
    """The mark of the one before stands until then, for who settles with the dead; it is the slot's own."""
    slot, other = scoreboard.workers[:2]
    slot.take(123)
    slot.mark[0], slot.mark[1] = 7, 8
    slot.vacate()
    assert (slot.mark.tolist(), other.mark.tolist(), slot.past_cpu_us) == ([7, 8, 0], [0, 0, 0], 0)
    slot.take(124)
    assert slot.mark.tolist() == [0, 0, 0]


def test_a_vacated_seat_keeps_counts_and_loses_gauges(
    scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord
) -> None:
    """Nothing is in flight in a process that is gone, and its successor starts without a policy."""
    slot = scoreboard.workers[0]
    slot.take(123)
    slot.state = READY
    meter.open(record)
    meter.count_dropped(2)
    slot.vacate()
    assert (slot.pid, slot.state) == (0, STOPPED)
    assert {s.family: sum(slot.region.values(s)) for s in slot.region.series() if sum(slot.region.values(s))} == {
        "log_lines_dropped_total": 2
    }
    slot.generation = 9
    slot.take(124)
    assert (slot.pid, slot.state, slot.generation) == (124, STARTING, 0)
