"""Slow readers: many callers that take a large answer at 1 KB a second, with small socket buffers of their own."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from benchmarks.load.transfers import connect

if TYPE_CHECKING:
    import socket

    from benchmarks.route import Route

RATE_BYTES: Final = 1000
_BUFFER_BYTES: Final = 4096


class SlowReaders:
    """Opens `number` downloads of `path` and reads `RATE_BYTES` a second of each while `read_for` runs.

    `cut` counts those that were cut before their answer's end; they are read no more.
    """

    def __init__(self, route: Route, path: str, *, number: int) -> None:
        self._stack = ExitStack()
        self._socks: list[socket.socket] = []
        self._served: set[int] = set()
        self.cut = 0
        head = route.head("GET", path)
        for _ in range(number):
            sock = connect(route.port, receive_buffer_bytes=_BUFFER_BYTES)
            self._stack.callback(sock.close)
            self._socks.append(sock)
            sock.send(head)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def served(self) -> int:
        """How many have got something."""
        return len(self._served)

    def read_for(self, seconds: float) -> None:
        """Read at the slow rate for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            next_turn = time.monotonic() + 1.0
            for sock in tuple(self._socks):
                self._read(sock)
            time.sleep(max(0.0, min(next_turn, end) - time.monotonic()))

    def _read(self, sock: socket.socket) -> None:
        try:
            received = sock.recv(RATE_BYTES)
        except BlockingIOError:
            return  # nothing there yet
        except ConnectionResetError:
            received = b""
        if received:
            self._served.add(sock.fileno())
        else:
            self.cut += 1
            self._socks.remove(sock)
