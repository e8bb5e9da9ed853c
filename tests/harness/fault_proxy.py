"""A TCP proxy between the gateway and its store that breaks what it carries, as a network or a server would.

The decision it carries: a mode holds from the moment that it is set, also for connections that are open already.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, Literal, Self

from tests.harness.client import LINGER_RESET
from tests.harness.ports import LOOPBACK, ReservedPort

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Mode = Literal["pass", "refuse", "black_hole", "frozen", "slow", "late", "flapping", "garbage"]
"""`refuse`: nobody listens, open connections are reset. `black_hole`: taken, and never answered. `frozen`: nothing
passes until the next mode, which then delivers all that waited, as TCP does behind a network that was cut for a while.
`slow`: each answer comes `delay_seconds` late, `late`: each question does. `flapping`: each connection is reset after a
few answers. `garbage`: answers are nonsense.
"""

GARBAGE: Final = b"$1x\r\n*-7\r\n\x00\xff%?:\r\n" * 8
ANSWERS_BEFORE_FLAP: Final = 8
_PIECE_BYTES: Final = 65_536


class FaultProxy:
    """A proxy on a port of its own that stays the same, before a port on 127.0.0.1 or a unix socket."""

    def __init__(self, target: int | Path) -> None:
        self._target = target
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.delay_seconds = 0.2
        self.connections = 0
        self._mode: Mode = "pass"
        self._open: list[socket.socket] = []
        self._reset: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._thawed = threading.Event()
        self._thawed.set()
        self._listener = self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the gateway finds the store."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def mode(self) -> Mode:
        """What it does now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        before, self._mode = self._mode, mode
        if mode == "frozen":
            self._thawed.clear()
        else:
            self._thawed.set()
        if mode == "refuse":
            self._refuse()
        elif before == "refuse":
            self._listener = self._listen()

    def close(self) -> None:
        """End everything that it carries."""
        self._thawed.set()
        self._refuse()
        self._reserved.release()
        for thread in self._threads:
            thread.join(10)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((LOOPBACK, self.port))
        listener.listen()
        self._begin(lambda: self._accept(listener))
        return listener

    def _refuse(self) -> None:
        self._reset.update(self._open)
        for each in (self._listener, *self._open):
            self._end(each)
        self._open.clear()

    def _begin(self, body: Callable[[], None]) -> None:
        thread = threading.Thread(target=body, name="fault-proxy", daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # closed: that is how this loop ends
            self.connections += 1
            try:
                far = self._connect()
            except OSError:  # the target is not running: whoever came is cut off, as by a load balancer
                near.close()
                continue
            for end in (near, far):
                if end.family == socket.AF_INET:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open = [*(end for end in self._open if end.fileno() >= 0), near, far]
            self._begin(lambda near=near, far=far: self._carry(near, far, self._asking))  # type: ignore[misc]
            self._begin(lambda near=near, far=far: self._carry(far, near, self._answering))  # type: ignore[misc]

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection((LOOPBACK, self._target))
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            far.connect(str(self._target))
        except OSError:
            far.close()
            raise
        return far

    def _carry(self, source: socket.socket, sink: socket.socket, change: Callable[[bytes, int], bytes | None]) -> None:
        count, is_broken = 0, True
        with contextlib.suppress(OSError):  # one end was reset, or has left: so does the other
            while piece := source.recv(_PIECE_BYTES):
                count += 1
                self._thawed.wait()
                changed = change(piece, count)
                if changed is None:
                    break
                sink.sendall(changed)
            else:
                is_broken = False
        if is_broken:
            self._reset.update((source, sink))
        for end in (source, sink):
            self._end(end)

    def _end(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):  # ended already
            if end in self._reset:  # no end in order ahead of the reset: it would make a part of an answer look whole
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
                end.shutdown(socket.SHUT_RD)
            else:
                end.shutdown(socket.SHUT_RDWR)
        end.close()

    def _asking(self, piece: bytes, _count: int) -> bytes | None:
        if self._mode == "late":
            time.sleep(self.delay_seconds)  # the fault itself
        return b"" if self._mode == "black_hole" else piece

    def _answering(self, piece: bytes, count: int) -> bytes | None:
        if self._mode == "slow":
            time.sleep(self.delay_seconds)  # the fault itself
        if self._mode == "flapping" and count > ANSWERS_BEFORE_FLAP:
            return None
        if self._mode == "garbage":
            return GARBAGE
        return b"" if self._mode == "black_hole" else piece
