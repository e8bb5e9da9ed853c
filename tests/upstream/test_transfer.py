"""One request's state, fed from both sides by hand: bounds, pauses, and what counts as sent or as progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gateway.upstream.transfer import HIGH_MARK_BYTES, LOW_MARK_BYTES, PIECE_BYTES, WINDOW_BYTES, Transfer
from tests.upstream.carriers import PHASES, Carrier, Listener, answer, poll, request, send, upload

if TYPE_CHECKING:
    from gateway.upstream.transfers import Engine

PAUSE_RECV: Final = 1
PAUSE_SEND: Final = 4
PIECE: Final = b"x" * 65_536


# -- towards the origin -----------------------------------------------------------------------------------------------


def test_content_is_queued_up_to_a_mark(engine: Engine, listener: Listener) -> None:
    """At the high mark the producer is asked to stop, and told of room when the low mark is reached; once."""
    transfer = engine.open(upload(), listener)
    taken = [transfer.feed(PIECE) for _ in range(HIGH_MARK_BYTES // len(PIECE))]
    assert taken == [True] * (len(taken) - 1) + [False]
    while transfer.queued > LOW_MARK_BYTES:
        engine.tell()
        assert listener.rooms == 0
        transfer.take(16_384)
    engine.tell()
    assert listener.rooms == 1
    while transfer.queued:
        transfer.take(16_384)
    engine.tell()
    assert listener.rooms == 1


def test_content_comes_out_as_it_went_in(engine: Engine, listener: Listener) -> None:
    """Byte for byte, in pieces of any size, and then the end."""
    transfer = engine.open(upload(), listener)
    for piece in (b"one", b"", b"two" * 100, b"three"):
        transfer.feed(piece)
    transfer.feed_end()
    out = bytearray()
    while taken := transfer.take(7):
        out += bytes(taken)
    assert out == b"one" + b"two" * 100 + b"three"
    assert transfer.take(7) == b""


def test_an_empty_queue_pauses_the_origins_side_and_a_feed_wakes_it(
    engine: Engine, carrier: Carrier, listener: Listener
) -> None:
    """Whoever carries it is told to wait, once, and to go on, once."""
    transfer = engine.open(upload(), listener)
    assert transfer.take(100) is None
    assert transfer.pauses == PAUSE_SEND
    transfer.feed(b"x")
    transfer.feed(b"y")
    assert carrier.repaused == [0]
    assert transfer.take(100) == b"x"
    assert transfer.take(100) == b"y"
    assert transfer.take(100) is None
    transfer.feed_end()
    assert carrier.repaused == [0, 0]
    assert transfer.take(100) == b""


def test_a_known_length_is_sent_when_its_last_byte_was_given(engine: Engine, listener: Listener) -> None:
    """Nobody asks for the end of a known length."""
    transfer = engine.open(upload(3), listener)
    send(transfer)
    transfer.feed(b"abc")
    assert not transfer.sent_whole
    transfer.feed_end()
    assert not transfer.sent_whole
    transfer.take(100)
    assert transfer.sent_whole


@pytest.mark.parametrize("asked", [request(), poll()], ids=["with content", "without"])
def test_what_is_at_hand_is_sent_at_once(engine: Engine, listener: Listener, asked: object) -> None:
    """A request in one piece is whole as soon as it goes out, and not before."""
    transfer = engine.open(asked, listener)  # type: ignore[arg-type]
    assert not transfer.sent_whole
    send(transfer)
    assert transfer.sent_whole


def test_content_for_a_transfer_that_has_ended_is_let_pass(engine: Engine, listener: Listener) -> None:
    """Its caller is not held for ever."""
    transfer = engine.open(upload(), listener)
    transfer.abort()
    assert all(transfer.feed(PIECE) for _ in range(100))
    transfer.feed_end()
    assert transfer.queued == 0


# -- from the origin --------------------------------------------------------------------------------------------------


def test_a_turn_takes_no_more_than_its_window(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """Then it stops, is told, and goes on."""
    transfer = engine.open(request(), listener)
    answer(transfer)
    stops = [transfer.put(b"x" * PIECE_BYTES) for _ in range(WINDOW_BYTES // PIECE_BYTES)]
    assert stops == [False] * (len(stops) - 1) + [True]
    assert transfer.pauses == PAUSE_RECV
    engine.tell()
    assert sum(map(len, listener.pieces)) == WINDOW_BYTES
    assert (transfer.pauses, carrier.repaused) == (0, [0])


def test_a_turn_ends_with_a_read_where_that_is_in_sight(engine: Engine, listener: Listener) -> None:
    """From half a window on it stops behind a small piece, the last of a read: else libcurl would keep the rest."""
    transfer = engine.open(request(), listener)
    answer(transfer)
    assert not transfer.put(b"x")
    assert not any(transfer.put(b"x" * PIECE_BYTES) for _ in range(WINDOW_BYTES // PIECE_BYTES // 2))
    assert transfer.put(b"x" * (PIECE_BYTES - 1))


def test_a_held_transfer_stays_paused_when_its_window_is_told(
    engine: Engine, carrier: Carrier, listener: Listener
) -> None:
    """The caller's hold outlasts the turn."""
    transfer = engine.open(request(), listener)
    answer(transfer, b"x" * WINDOW_BYTES)
    transfer.hold()
    transfer.hold()
    engine.tell()
    assert transfer.pauses == PAUSE_RECV
    transfer.resume()
    transfer.resume()
    assert (transfer.pauses, carrier.repaused) == (0, [PAUSE_RECV, 0])


def test_pauses_of_both_directions_do_not_undo_each_other(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """A direction that is not named would be taken as resumed: the mask is always the whole of it."""
    transfer = engine.open(upload(), listener)
    transfer.take(1)
    transfer.hold()
    transfer.feed(b"x")
    transfer.take(1)
    transfer.take(1)
    transfer.resume()
    assert carrier.repaused == [PAUSE_RECV | PAUSE_SEND, PAUSE_RECV, PAUSE_SEND]


@pytest.mark.parametrize("interim", [100, 102, 103, 104, 199])
def test_interim_heads_and_trailers_are_dropped(engine: Engine, listener: Listener, interim: int) -> None:
    """What is told is the final head, and nothing behind the content."""
    transfer = engine.open(request(), listener)
    send(transfer)
    for line in (b"HTTP/1.1 %d x\r\n" % interim, b"Link: </x>\r\n", b"\r\n"):
        assert transfer.put_line(line)
    assert transfer.head is None
    answer(transfer, b"content")
    assert transfer.put_line(b"x-trailer: 1\r\n")
    assert transfer.put_line(b"\r\n")
    engine.ended(transfer, 0)
    engine.tell()
    assert listener.heads == [(200, [b"Content-Type: text/plain\r\n"])]


@pytest.mark.parametrize(
    "line",
    [b"HTTP/1.1 101 x", b"HTTP/1.1 600 x", b"HTTP/1.1 20 x", b"HTTP/1.1 abc", b"HTTP/1.1", b"x"],
)
def test_a_head_that_cannot_be_passed_on_is_refused(engine: Engine, listener: Listener, line: bytes) -> None:
    """An odd status is no answer: the transfer fails."""
    transfer = engine.open(request(), listener)
    assert transfer.put_line(line + b"\r\n")
    assert not transfer.put_line(b"\r\n")


def test_a_repeat_forgets_the_first_attempt(engine: Engine, listener: Listener) -> None:
    """Lines of a head that did not become whole do not stand in the next."""
    transfer = engine.open(poll(), listener)
    send(transfer)
    transfer.put_line(b"HTTP/1.1 500 x\r\n")
    engine.ended(transfer, 56)
    answer(transfer)
    engine.tell()
    assert listener.heads == [(200, [b"Content-Type: text/plain\r\n"])]


# -- progress ---------------------------------------------------------------------------------------------------------


def overdue(transfer: Transfer, at: float) -> bool:
    """Say whether the transfer is given up at that time."""
    return PHASES.overdue(transfer, at) is not None


def test_before_it_is_sent_the_connect_timeout_counts(engine: Engine, listener: Listener) -> None:
    """That one is libcurl's own."""
    assert not overdue(engine.open(request(), listener), 1e6)


def test_the_first_byte_has_its_time_from_the_whole_request_on(
    engine: Engine, carrier: Carrier, listener: Listener
) -> None:
    """Content that takes long does not eat into it."""
    transfer = engine.open(upload(2), listener)
    send(transfer)
    for at in (0.0, 5000.0):
        carrier.clock.now = at
        transfer.feed(b"x")
        transfer.take(10)
    transfer.feed_end()
    assert not overdue(transfer, 5000 + PHASES.first_byte)
    assert overdue(transfer, 5000 + PHASES.first_byte + 1)


@pytest.mark.parametrize("line", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"x-field: y\r\n"])
def test_interim_answers_and_half_a_head_are_no_progress(
    engine: Engine, carrier: Carrier, listener: Listener, line: bytes
) -> None:
    """An origin that sends one now and then has no more time for its answer."""
    transfer = engine.open(request(), listener)
    send(transfer)
    for at in range(0, int(PHASES.first_byte), 10):
        carrier.clock.now = float(at)
        for part in line.splitlines(keepends=True):
            assert transfer.put_line(part)
    assert not overdue(transfer, PHASES.first_byte)
    assert overdue(transfer, PHASES.first_byte + 1)


def test_trailers_are_bounded_and_no_progress(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """Behind the content nothing is passed on, so nothing there keeps an exchange open."""
    transfer = engine.open(request(), listener)
    send(transfer)
    answer(transfer)
    engine.tell()
    carrier.clock.now = PHASES.idle
    assert transfer.put_line(b"x-trailer: 1\r\n")
    assert overdue(transfer, PHASES.idle + 1)
    assert not all(transfer.put_line(b"x-trailer: %s\r\n" % (b"v" * 1000)) for _ in range(100))


def test_an_origin_that_takes_no_content_is_idle(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """What is queued and not taken counts against it; a queue that the caller leaves empty does not."""
    transfer = engine.open(upload(), listener)
    send(transfer)
    assert transfer.take(10) is None
    assert not overdue(transfer, 1e6)
    carrier.clock.now = 1000.0
    transfer.feed(b"x")
    assert not overdue(transfer, 1000 + PHASES.idle)
    assert overdue(transfer, 1000 + PHASES.idle + 1)


def test_silence_within_an_answer_is_bounded(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """From the last byte, whatever the answer takes in all."""
    transfer = engine.open(request(), listener)
    send(transfer)
    answer(transfer)
    for at in range(0, 10_000, 250):
        carrier.clock.now = float(at)
        transfer.put(b"x")
        engine.tell()
        assert not overdue(transfer, at + PHASES.idle)
    assert overdue(transfer, 9750 + PHASES.idle + 1)


def test_a_callers_slowness_is_not_the_origins(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """While the exchange holds it, and for the idle time after that, nothing is overdue."""
    transfer = engine.open(request(), listener)
    send(transfer)
    answer(transfer, b"x")
    engine.tell()
    transfer.hold()
    assert not overdue(transfer, 1e6)
    carrier.clock.now = 1e6
    transfer.resume()
    assert not overdue(transfer, 1e6 + PHASES.idle)
    assert overdue(transfer, 1e6 + PHASES.idle + 1)
