"""Transfers started, told, ended, tried once more and given up, by a carrier that does what the test says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.upstream.carriers import PHASES, Carrier, Listener, answer, poll, request, send, upload

if TYPE_CHECKING:
    from gateway.upstream.interface import Request
    from gateway.upstream.transfer import Transfer
    from gateway.upstream.transfers import Engine

REFUSED: Final = 7
UNRESOLVED: Final = 6
TIMED_OUT: Final = 28
NO_TLS: Final = 60
ABORTED: Final = 42
RECEIVE_FAILED: Final = 56


def failed(engine: Engine, transfer: Transfer, code: int) -> None:
    """Let a transfer end with a libcurl error, and tell."""
    engine.ended(transfer, code)
    engine.tell()


def test_a_small_answer_is_told_in_one_call(engine: Engine, listener: Listener) -> None:
    """Head, content and end of one turn come as one batch, so that they become one write."""
    transfer = engine.open(request(), listener)
    send(transfer)
    answer(transfer, b"a", b"b")
    engine.ended(transfer, 0)
    engine.tell()
    assert (listener.batches, listener.pieces, listener.whole) == (1, [b"a", b"b"], True)
    assert listener.heads == [(200, [b"Content-Type: text/plain\r\n"])]


@pytest.mark.parametrize(
    ("code", "error_type"),
    [
        (UNRESOLVED, "dns_error"),
        (REFUSED, "connection_refused"),
        (NO_TLS, "tls_error"),
        (TIMED_OUT, "connection_timeout"),
        (RECEIVE_FAILED, "connection_refused"),
    ],
)
def test_before_anything_was_sent_the_failure_says_so(
    engine: Engine, listener: Listener, *, code: int, error_type: str
) -> None:
    """The error types for "nothing sent", whatever libcurl calls it."""
    transfer = engine.open(request(), listener)
    while not listener.failures:  # some are tried once more
        failed(engine, transfer, code)
    (failure,) = listener.failures
    assert (failure.error_type, failure.sent) == (error_type, False)


@pytest.mark.parametrize("code", [REFUSED, TIMED_OUT, RECEIVE_FAILED, ABORTED, 0])
@pytest.mark.parametrize("asked", [request(), upload(5), upload()], ids=["small", "large", "chunked"])
def test_what_was_sent_and_is_paid_for_is_never_repeated(
    engine: Engine, carrier: Carrier, listener: Listener, *, code: int, asked: Request
) -> None:
    """However it ends, once it was handed over: one start, one failure, and it says that it was sent."""
    transfer = engine.open(asked, listener)
    send(transfer)
    failed(engine, transfer, code)
    assert len(carrier.started) == 1
    assert [(failure.error_type, failure.sent) for failure in listener.failures] == [("origin_failed", True)]


@pytest.mark.parametrize("code", [UNRESOLVED, REFUSED, NO_TLS])
def test_what_was_not_sent_is_tried_once_more(
    engine: Engine, carrier: Carrier, listener: Listener, *, code: int
) -> None:
    """Any method, on a connection of its own, and not a third time."""
    transfer = engine.open(request(), listener)
    failed(engine, transfer, code)
    assert [fresh for _, fresh in carrier.started] == [False, True]
    assert listener.failures == []
    failed(engine, transfer, code)
    assert len(carrier.started) == 2
    assert len(listener.failures) == 1


def test_a_connect_timeout_is_not_repeated(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """It would double the caller's wait."""
    failed(engine, engine.open(request(), listener), TIMED_OUT)
    assert (len(carrier.started), len(listener.failures)) == (1, 1)


def test_a_free_get_is_repeated_once_after_it_was_sent(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """As long as no byte of an answer has come."""
    transfer = engine.open(poll(), listener)
    send(transfer)
    failed(engine, transfer, RECEIVE_FAILED)
    assert [fresh for _, fresh in carrier.started] == [False, True]
    send(transfer)
    failed(engine, transfer, RECEIVE_FAILED)
    assert (len(carrier.started), len(listener.failures)) == (2, 1)


def test_nothing_is_repeated_after_the_head(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """A free GET neither: its caller may have seen a part."""
    transfer = engine.open(poll(), listener)
    send(transfer)
    answer(transfer, b"part")
    failed(engine, transfer, RECEIVE_FAILED)
    assert (len(carrier.started), listener.pieces, len(listener.failures)) == (1, [b"part"], 1)


def test_a_stale_connection_costs_no_attempt(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """Nothing was sent on it: the request starts again on a new one, and still has its one repeat."""
    transfer = engine.open(request(), listener)
    transfer.stale = True
    failed(engine, transfer, ABORTED)
    assert [fresh for _, fresh in carrier.started] == [False, True]
    assert not transfer.stale
    failed(engine, transfer, REFUSED)
    assert len(carrier.started) == 3


def test_content_that_waits_is_sent_with_the_repeat(engine: Engine, listener: Listener) -> None:
    """What was fed before the first attempt failed is not lost."""
    transfer = engine.open(upload(), listener)
    transfer.feed(b"abc")
    failed(engine, transfer, REFUSED)
    transfer.feed_end()
    assert (transfer.take(100), transfer.take(100)) == (b"abc", b"")


def test_repeats_are_few_among_the_requests(engine: Engine, carrier: Carrier) -> None:
    """An origin that refuses everyone gets 20 % more, and not twice as many."""
    for _ in range(1000):
        transfer = engine.open(request(), Listener())
        failed(engine, transfer, REFUSED)
        if transfer.active:
            failed(engine, transfer, REFUSED)
    assert 1200 <= len(carrier.started) <= 1215


def test_an_aborted_transfer_is_told_nothing(engine: Engine, carrier: Carrier, listener: Listener) -> None:
    """Its exchange may be gone: neither what had come, nor its end, nor a repeat."""
    transfer = engine.open(poll(), listener)
    send(transfer)
    answer(transfer, b"late")
    transfer.abort()
    transfer.abort()
    failed(engine, transfer, RECEIVE_FAILED)
    assert carrier.dropped == [transfer]
    assert len(carrier.started) == 1
    assert listener == Listener()


def test_an_exchange_that_aborts_while_it_is_told_hears_no_more(engine: Engine, listener: Listener) -> None:
    """The head was enough: the failure that stands behind it is nobody's."""

    class Leaver(Listener):
        """Aborts upon the first word."""

        def on_answer(self, head: object, pieces: object, *, whole: bool) -> None:
            """Leave."""
            super().on_answer(head, pieces, whole=whole)  # type: ignore[arg-type]
            transfer.abort()

    leaver = Leaver()
    transfer = engine.open(request(), leaver)
    other = engine.open(request(), listener)
    for each in (transfer, other):
        send(each)
        answer(each, b"x")
        engine.ended(each, RECEIVE_FAILED)
    engine.tell()
    assert (leaver.batches, leaver.failures) == (1, [])
    assert (listener.batches, len(listener.failures)) == (1, 1)


def test_a_dead_carrier_ends_all_its_transfers(engine: Engine) -> None:
    """What had been sent may have been executed; what had not is safe to ask for again."""
    sent, waiting = Listener(), Listener()
    transfers = [engine.open(request(), sent), engine.open(request(), waiting)]
    send(transfers[0])
    engine.lost(transfers)
    engine.tell()
    assert [(f.error_type, f.sent) for f in sent.failures] == [("origin_failed", True)]
    assert [(f.error_type, f.sent) for f in waiting.failures] == [("connection_refused", False)]


@pytest.mark.parametrize("asked", [request(), poll()], ids=["paid", "free"])
def test_an_overdue_transfer_is_dropped_and_not_repeated(
    engine: Engine, carrier: Carrier, listener: Listener, *, asked: Request
) -> None:
    """It has waited long enough: once dropped at the origin it ends as a timeout."""
    transfer = engine.open(asked, listener)
    send(transfer)
    carrier.clock.now = PHASES.first_byte + 1
    engine.give_up_overdue([transfer])
    assert carrier.dropped == [transfer]
    assert [(f.error_type, f.sent) for f in listener.failures] == [("origin_timeout", True)]
    assert len(carrier.started) == 1
