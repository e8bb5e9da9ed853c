"""Event streams, many at once: how late each event is, by the time of sending that the origin writes into it.

Origin and driver read the same monotonic clock of one machine, so a delay needs no agreement between clocks.
"""

from __future__ import annotations

import re
import selectors
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from benchmarks.load.transfers import PIECE_BYTES, connect
from benchmarks.load.wrk import LoadError

if TYPE_CHECKING:
    import socket

    from benchmarks.route import Route

_STAMP: Final = re.compile(rb'"at": (\d{20})')
_OK: Final = re.compile(rb"HTTP/1\.1 200 ")


class EventStreams:
    """Opens streams spread over `spread_seconds`, so that their events come spread too and not in a burst."""

    def __init__(self, route: Route, path: str, *, number: int, spread_seconds: float = 1.0) -> None:
        """Open them all; LoadError where one is refused. Their heads are read by the first call of `watch`."""
        self._stack = ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self._opened: set[int] = set()
        self.delays_ns: list[int] = []
        self.number = number
        head, begin = route.head("GET", path), time.monotonic()
        for index in range(number):
            self._open(route.port, head)
            self.watch(begin + spread_seconds * (index + 1) / number - time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def opened(self) -> int:
        """How many streams have begun: their heads are here, and say 200."""
        return len(self._opened)

    def wait_open(self, patience_seconds: float) -> None:
        """Wait until all streams have begun; LoadError where they have not in time."""
        deadline = time.monotonic() + patience_seconds
        while self.opened < self.number:
            if time.monotonic() > deadline:
                raise LoadError(f"{self.opened} of {self.number} streams began within {patience_seconds:.0f} s")
            self.watch(0.2)

    def watch(self, seconds: float) -> None:
        """Read what comes for so long; the delay of each event is added to `delays_ns`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._read(key.data)

    def _open(self, port: int, head: bytes) -> None:
        sock = connect(port)
        self._stack.callback(sock.close)
        self._selector.register(sock, selectors.EVENT_READ, sock)
        sock.send(head)

    def _read(self, sock: socket.socket) -> None:
        received = sock.recv_into(self._buffer)
        now = time.monotonic_ns()
        if not received:
            raise LoadError("a stream was ended")
        piece = self._buffer[:received]
        if sock.fileno() not in self._opened and _OK.match(piece):
            self._opened.add(sock.fileno())
        self.delays_ns += [now - int(found[1]) for found in _STAMP.finditer(piece)]
