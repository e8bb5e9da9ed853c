"""How much an answer may take on the wire beside its content, before it counts as endless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.upstream.overhead import Overhead
from tests.upstream.carriers import answer, request, send

if TYPE_CHECKING:
    from gateway.upstream.transfer import Transfer
    from gateway.upstream.transfers import Engine
    from tests.upstream.carriers import Listener

MIB = 1024 * 1024


class Wire:
    """What one connection has received, as the test says."""

    def __init__(self, transfer: Transfer) -> None:
        self.received = 0
        self._transfer = transfer
        self._now = 0.0
        self._overhead = Overhead(lambda _: self.received)

    def is_excessive(self, received: int, *, content: int = 0) -> bool:
        """Receive more, some of it content, and look a second later."""
        self.received += received
        self._now += 1
        self._transfer.received += content
        return self._overhead.excessive([self._transfer], self._now) == [self._transfer]


def begun(engine: Engine, listener: Listener) -> Transfer:
    """Return a transfer whose answer has begun."""
    transfer = engine.open(request(), listener)
    send(transfer)
    answer(transfer)
    return transfer


def test_bytes_without_content_are_bounded(engine: Engine, listener: Listener) -> None:
    """A mebibyte may come without content; at once, or little by little."""
    wire = Wire(begun(engine, listener))
    assert not wire.is_excessive(8 * MIB)  # before the first look: what the connection carried before
    assert not any(wire.is_excessive(MIB // 8) for _ in range(8))
    assert wire.is_excessive(1)


def test_content_earns_framing(engine: Engine, listener: Listener) -> None:
    """An answer byte by byte, each in a chunk and a record of its own, is no endless one, however long it lasts."""
    wire = Wire(begun(engine, listener))
    assert not any(wire.is_excessive(30_000 * 28, content=30_000) for _ in range(100))


def test_an_answer_that_has_not_begun_is_not_looked_at(engine: Engine, listener: Listener) -> None:
    """Its head is bounded elsewhere."""
    wire = Wire(engine.open(request(), listener))
    assert not wire.is_excessive(0)
    assert not wire.is_excessive(8 * MIB)


def test_it_looks_once_a_second(engine: Engine, listener: Listener) -> None:
    """Each look is a call to the kernel."""
    transfer = begun(engine, listener)
    looks = []
    overhead = Overhead(lambda _: looks.append(1) or 0)  # type: ignore[func-returns-value]
    for quarter in range(9):
        overhead.excessive([transfer], quarter / 4)
    assert len(looks) == 3
