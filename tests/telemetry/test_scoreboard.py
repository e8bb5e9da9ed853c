"""Readiness is what the processes themselves have said, read out of shared memory."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from gateway.telemetry.metrics.scoreboard import Board, Readiness, State

if TYPE_CHECKING:
    from gateway.telemetry.metrics.meter import Meter
    from gateway.telemetry.record import Exchanged
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
def test_readiness(board: Board, supervisor: State, workers: tuple[State, State], status: str) -> None:
    """One ready worker is enough once all was ready at the start, unless the supervisor drains."""
    board.supervisor.state = supervisor
    for seat, state in zip(board.workers, workers, strict=True):
        seat.state = state
    assert board.readiness() == Readiness(status, 0, workers.count(READY), 2)


def test_the_generation_is_the_one_all_ready_workers_have(board: Board) -> None:
    """During a reload the older one is told; a worker that is not ready has no say."""
    first, second = board.workers
    first.generation, second.generation = 3, 2
    assert board.generation() == 0
    first.state = READY
    assert board.generation() == 3
    second.state = READY
    assert board.generation() == 2
    first.state = second.state = State.DRAINING
    assert board.generation() == 2


def test_a_seat_is_taken_in_another_process(board: Board, fork: Fork) -> None:
    """What a worker writes at its seat is seen by everybody, and its death leaves the seat as it stood."""

    def work(say: Say) -> None:
        seat = board.workers[1]
        seat.take(os.getpid())
        seat.state, seat.generation = READY, 4
        say(b"ready")
        signal.pause()

    board.supervisor.state = READY
    child = fork(work)
    assert child.heard() == b"ready"
    seat = board.workers[1]
    assert (seat.pid, seat.state, seat.generation) == (child.pid, READY, 4)
    assert board.readiness() == Readiness("ready", 4, 1, 2)


def test_who_sits_down_has_marked_nothing(board: Board) -> None:
    """The mark of the one before stands until then, for who settles with the dead; it is the seat's own."""
    seat, other = board.workers[:2]
    seat.take(123)
    seat.mark[0], seat.mark[1] = 7, 8
    seat.vacate()
    assert (seat.mark.tolist(), other.mark.tolist(), seat.past_cpu_us) == ([7, 8, 0], [0, 0, 0], 0)
    seat.take(124)
    assert seat.mark.tolist() == [0, 0, 0]


def test_a_vacated_seat_keeps_counts_and_loses_gauges(board: Board, meter: Meter, record: Exchanged) -> None:
    """Nothing is in flight in a process that is gone, and its successor starts without a policy."""
    seat = board.workers[0]
    seat.take(123)
    seat.state = READY
    meter.open(record)
    meter.count_dropped(2)
    seat.vacate()
    assert (seat.pid, seat.state) == (0, STOPPED)
    assert {s.family: sum(seat.region.values(s)) for s in seat.region.series() if sum(seat.region.values(s))} == {
        "log_lines_dropped_total": 2
    }
    seat.generation = 9
    seat.take(124)
    assert (seat.pid, seat.state, seat.generation) == (124, STARTING, 0)
