"""Exemplars: the last request of a bucket by name, one a second at most, whole or not at all."""

from __future__ import annotations

import itertools
import signal
from typing import TYPE_CHECKING

import pytest

from gateway.http.traceparent import Trace
from gateway.telemetry.metrics.exemplars import FIRST_SLOT, SLOTS, SLOTS_OF_A_CLASS, Exemplar, Exemplars, exemplar_of
from gateway.telemetry.metrics.families import CLASSES
from gateway.telemetry.metrics.meter import Meter
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.telemetry.metrics.scoreboard import Scoreboard
    from gateway.telemetry.record import ExchangeRecord
    from tests.telemetry.conftest import Fork, Say

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
NAMES = ("a" * 32, "b" * 32)


@pytest.fixture
def exemplars() -> Iterator[Exemplars]:
    """Return empty slots."""
    made = Exemplars()
    yield made
    made.close()


def test_a_slot_gives_back_what_it_was_given(exemplars: Exemplars) -> None:
    """The newest one, in its own slot; an empty slot holds none."""
    first, second = Exemplar(1.5, 0.25, is_traced=False, id="a" * 32), Exemplar(2.5, 0.5, is_traced=True, id=TRACE_ID)
    exemplars.keep(3, first)
    exemplars.keep(4, first)
    exemplars.keep(4, second)
    assert [exemplars.read(slot) for slot in (2, 3, 4, SLOTS - 1)] == [None, first, second, None]


@pytest.mark.parametrize("place", range(53))
def test_a_slot_that_is_half_written_holds_none(exemplars: Exemplars, place: int) -> None:
    """A byte of another exemplar, wherever it stands, is noticed."""
    exemplars.keep(0, Exemplar(1.5, 0.25, is_traced=False, id="a" * 32))
    exemplars._memory[place] ^= 1
    assert exemplars.read(0) is None


def test_a_reader_sees_no_half_of_one(exemplars: Exemplars, fork: Fork) -> None:
    """While another process writes without a pause, what is read was written so, or is nothing."""
    written = [Exemplar(float(number), float(number), is_traced=bool(number), id=NAMES[number]) for number in (0, 1)]

    def write(say: Say) -> None:
        exemplars.keep(0, written[0])
        say(b"begun")
        signal.alarm(30)
        for exemplar in itertools.cycle(written):
            exemplars.keep(0, exemplar)

    writer = fork(write)
    assert writer.heard() == b"begun"
    seen = {exemplars.read(0) for _ in range(20_000)}

    def has_seen_both() -> bool:
        seen.add(exemplars.read(0))
        return seen >= set(written)

    until(has_seen_both, "both")  # one processor for both may give the writer no turn for long
    assert seen - {None} == set(written)


def test_a_request_is_kept_once_a_second_and_bucket(
    scoreboard: Scoreboard, make_record: Callable[[], ExchangeRecord]
) -> None:
    """The first one in a second names its bucket; another bucket, class, or a clock set back begins anew."""
    now = [1_000.0]
    region = scoreboard.workers[0].region
    meter = Meter(region, scoreboard.endpoints, emit=lambda _record: None, clock=lambda: now[0])

    def close(name: str, *, at: float, seconds: float = 1.5, billing: str = "paid") -> None:
        now[0] = at
        record = make_record()
        record.request_id, record.billing, record.duration_seconds, record.first_byte_seconds = (
            name,
            billing,
            seconds,
            None,
        )
        meter.close(record)

    def kept(seconds: float = 1.5, billing: str = "paid") -> str | None:
        bucket = {1.5: 9, 0.25: 7}[seconds]
        found = region.exemplars.read(CLASSES.index(billing) * SLOTS_OF_A_CLASS + bucket)
        assert found is None or found.seconds == seconds
        return found.id if found else None

    close("first", at=1_000.0)
    close("same second", at=1_000.9)
    close("another bucket", at=1_000.9, seconds=0.25)
    assert (kept(), kept(0.25), kept(billing="free")) == ("first", "another bucket", None)
    close("next second", at=1_001.0)
    close("free", at=1_001.0, billing="free")
    assert (kept(), kept(billing="free")) == ("next second", "free")
    close("an hour before", at=1_001.0 - 3_600)
    assert kept() == "an hour before"


def test_durations_and_first_bytes_have_slots_of_their_own(
    scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord
) -> None:
    """Neither names the other's bucket."""
    meter.close(record)  # 1.5 s in all, 1.25 s to the first byte: the same bucket
    found = {name: scoreboard.workers[0].region.exemplars.read(first + 9) for name, first in FIRST_SLOT.items()}
    values = {name: exemplar.seconds for name, exemplar in found.items() if exemplar}
    assert values == {"request_duration_seconds": 1.5, "first_byte_seconds": 1.25}


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (None, None),
        (f"00-{TRACE_ID}-{SPAN_ID}-01".encode(), TRACE_ID),
        (f"ff-{TRACE_ID}-{SPAN_ID}-01".encode(), None),
        (b"\xff", None),
    ],
)
def test_a_trace_comes_before_a_request(
    record: ExchangeRecord, traceparent: bytes | None, trace_id: str | None
) -> None:
    """The caller's valid trace is the name, else the request's own id, which its log event has."""
    record.traceparent = traceparent
    exemplar = exemplar_of(record, 1.0)
    assert (exemplar.is_traced, exemplar.id) == (trace_id is not None, trace_id or record.request_id)


def test_the_gateways_own_trace_is_named(record: ExchangeRecord) -> None:
    """Where requests are traced here, the exchange's place in the trace says which."""
    record.trace = Trace(TRACE_ID, "", span_id=SPAN_ID, client_id=SPAN_ID, flags=1)
    assert exemplar_of(record, 1.0)[2:] == (True, TRACE_ID)
