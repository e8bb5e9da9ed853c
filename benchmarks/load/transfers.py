"""Large bodies, several at a time: one thread, non-blocking sockets, large pieces, nothing kept of what comes in."""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.load.answer import AnswerReader
from benchmarks.load.wrk import LoadError
from benchmarks.places import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.route import Route

PIECE_BYTES: Final = 256 * 1024
CONNECT_SECONDS: Final = 10.0
_JSON_FRAME: Final = (b'{"data": "', b'"}')


def json_content(length: int) -> bytes:
    """Return a JSON document of exactly `length` bytes."""
    begin, end = _JSON_FRAME
    return begin + b"x" * (length - len(begin) - len(end)) + end


def connect(port: int, *, receive_buffer_bytes: int | None = None) -> socket.socket:
    """Return a connected, non-blocking socket; OSError where nobody listens."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer_bytes is not None:  # before connecting: the window is agreed upon then
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.settimeout(CONNECT_SECONDS)
    try:
        sock.connect((LOOPBACK, port))
    except OSError:
        sock.close()
        raise
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return sock


class Transfer:
    """One request on a connection of its own. `send_next` and `receive_next` are for sockets that are ready."""

    def __init__(self, port: int, head: bytes, *, content: bytes = b"") -> None:
        self.sock = connect(port)
        self.answer = AnswerReader()
        self._out = [memoryview(part) for part in (head, content) if part]

    @property
    def is_sent(self) -> bool:
        """Whether the whole request is out."""
        return not self._out

    def send_next(self) -> None:
        """Send as much as the socket takes of one piece."""
        sent = self.sock.send(self._out[0][:PIECE_BYTES])
        self._out[0] = self._out[0][sent:]
        if not self._out[0]:
            del self._out[0]

    def receive_next(self, buffer: memoryview) -> None:
        """Receive what there is, up to the buffer's size; LoadError where the connection ends before the answer."""
        received = self.sock.recv_into(buffer)
        if not received:
            raise LoadError(f"cut after {self.answer.content_bytes} bytes of the answer")
        self.answer.take(buffer[:received])


@dataclass(frozen=True, slots=True)
class Done:
    """What a set of transfers came to: content bytes received in all, seconds from the first byte to the last."""

    received_bytes: int
    seconds: float


def run_transfers(
    route: Route, requests: Sequence[tuple[bytes, bytes]], *, patience_seconds: float, good: int = 200
) -> Done:
    """Run all requests (head, content) at once to their ends.

    LoadError where one is cut, is answered by another status than `good`, or is not done in time.
    """
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        transfers = [Transfer(route.port, head, content=content) for head, content in requests]
        for transfer in transfers:
            stack.callback(transfer.sock.close)
            selector.register(transfer.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, transfer)
        begin = time.monotonic()
        _turn_until_done(selector, deadline=begin + patience_seconds)
        seconds = time.monotonic() - begin
    statuses = {transfer.answer.status for transfer in transfers}
    if statuses != {good}:
        raise LoadError(f"answered by {', '.join(map(str, sorted(statuses)))}")
    return Done(sum(transfer.answer.content_bytes for transfer in transfers), seconds)


def _turn_until_done(selector: selectors.BaseSelector, *, deadline: float) -> None:
    buffer = memoryview(bytearray(PIECE_BYTES))
    while selector.get_map():
        if time.monotonic() > deadline:
            raise LoadError("not done in time")
        for key, ready in selector.select(1.0):
            try:
                _serve(selector, key.data, ready, buffer=buffer)
            except BlockingIOError:
                continue  # ready a moment ago
            except OSError as fault:
                raise LoadError(f"cut: {fault.strerror}") from fault


def _serve(selector: selectors.BaseSelector, transfer: Transfer, ready: int, *, buffer: memoryview) -> None:
    if ready & selectors.EVENT_WRITE and not transfer.is_sent:
        transfer.send_next()
        if transfer.is_sent:
            selector.modify(transfer.sock, selectors.EVENT_READ, transfer)
    if ready & selectors.EVENT_READ:
        transfer.receive_next(buffer)
    if transfer.answer.is_done:
        selector.unregister(transfer.sock)
