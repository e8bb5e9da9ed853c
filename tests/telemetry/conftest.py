"""Scoreboards, records, and child processes that are ended by their own ids."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from gateway.telemetry.metrics.endpoint_labels import EndpointLabels
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.metrics.scoreboard import Scoreboard
from gateway.telemetry.record import ExchangeRecord

NOON = 1_798_804_800.25
"""2027-01-01T12:00:00.250Z in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Child:
    """A forked process."""

    pid: int
    told: int

    def heard(self) -> bytes:
        """Wait until the child says something, and return it; empty where it ended without a word."""
        return os.read(self.told, 64)

    def kill(self) -> None:
        """End it like the kernel's memory killer does."""
        os.kill(self.pid, signal.SIGKILL)

    def exit_status(self) -> int:
        """Wait for its end: the exit code, or minus the signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


Say = Callable[[bytes], None]
Fork = Callable[[Callable[[Say], None]], Child]


def _run_and_leave(body: Callable[[Say], None], told: int) -> None:
    try:
        body(lambda word: (os.write(told, word), None)[1])
    except BaseException:  # noqa: BLE001 - a forked child must never return into pytest
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Fork a child that runs a function; what is still alive at the end is killed by id."""
    children: list[Child] = []

    def begin(body: Callable[[Say], None]) -> Child:
        hears, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            _run_and_leave(body, told)
        os.close(told)
        children.append(Child(pid, hears))
        return children[-1]

    yield begin
    for child in children:
        os.close(child.told)
        try:
            child.kill()
            child.exit_status()
        except (ProcessLookupError, ChildProcessError):
            pass  # its test has reaped it


@pytest.fixture
def scoreboard() -> Iterator[Scoreboard]:
    """Return a scoreboard for two workers."""
    made = Scoreboard(workers=2)
    yield made
    made.close()


@pytest.fixture
def labels() -> Iterator[EndpointLabels]:
    """Return an empty table of endpoint labels."""
    made = EndpointLabels()
    yield made
    made.close()


@pytest.fixture
def emitted() -> list[ExchangeRecord]:
    """Return the list of records that `meter` has handed to the log."""
    return []


@pytest.fixture
def meter(scoreboard: Scoreboard, emitted: list[ExchangeRecord]) -> Meter:
    """Return the meter of the first worker, whose clock stands at NOON."""
    return Meter(scoreboard.workers[0].region, scoreboard.endpoints, emit=emitted.append, clock=lambda: NOON)


@pytest.fixture
def record() -> ExchangeRecord:
    """Return the record of a paid request that went well."""
    return paid_record()


@pytest.fixture
def make_record() -> Callable[[], ExchangeRecord]:
    """Return a maker of records like `record`."""
    return paid_record


def paid_record() -> ExchangeRecord:
    """Return a record with all that this release knows."""
    record = ExchangeRecord("0123456789abcdef", "POST")
    record.fal_request_id = "764cabcf-b745-4b3e-ae38-1200304cf45b"
    record.key, record.team = "web-prod", "design"
    record.host, record.endpoint, record.billing = "fal.run", "fal-ai/flux/dev", "paid"
    record.status = 200
    record.duration_seconds, record.first_byte_seconds, record.overhead_seconds = 1.5, 1.25, 0.0004
    record.request_bytes, record.response_bytes = 256, 1024
    return record
