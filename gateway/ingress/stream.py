"""A caller's socket as callbacks: no Future a read, none a write, no copy of what is read.

Tornado's stream answers each read with a Future and gathers in a buffer of its own; both are most of what a small
request costs (PERFORMANCE 3). This stream keeps Tornado's accept, event loop and closing, and replaces the two ways in
between. It leans on these private parts of Tornado 6.6.1, and tests/test_tornado_parts.py fails when they
change: `BaseIOStream._handle_events(fd, events)`, `BaseIOStream._state`, `TCPServer._handle_connection`.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

if TYPE_CHECKING:
    from collections.abc import Sequence

READ_BYTES: Final = 65_536
_JOINED_BYTES: Final = 16_384  # below it one copy is cheaper than a gathering write
_PIECES_A_WRITE: Final = 512  # well under IOV_MAX
_INT: Final = struct.Struct("i")  # what SIOCOUTQ, the same number as TIOCOUTQ, writes (tcp(7))
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
_IN_ORDER: Final = struct.pack("ii", 0, 0)
_ESTABLISHED: Final = 1  # include/net/tcp_states.h


def reset_by_default(listener: socket.socket) -> None:
    """Make the kernel end accepted connections by a reset where nobody says otherwise: when the process is killed.

    Connections inherit it from their listener. A caller whose answer ends with its connection (HTTP/1.0) would else
    take the part that it has for the whole.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class StreamOwner(Protocol):
    """Told of what happens on the socket."""

    def on_bytes(self, data: bytes) -> None:
        """Take what the caller sent."""

    def on_drained(self) -> None:
        """Everything written has gone to the kernel."""

    def on_lost(self) -> None:
        """The caller has left, or the connection broke. The stream is closed by then."""


class CallerStream(IOStream):
    """One accepted connection."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._unsent: deque[memoryview] = deque()
        self.backlog = 0  # bytes that the kernel has not taken yet
        self.progress = 0  # bytes that it has taken, in all
        self._reads = True
        self._resets = False

    def start(self, owner: StreamOwner) -> None:
        """Begin to read."""
        self._owner = owner
        self._state = IOLoop.READ | IOLoop.ERROR
        self.io_loop.add_handler(self.fileno(), self._handle_events, self._state)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _handle_events(self, fd: Any, events: int) -> None:  # noqa: ANN401, ARG002 (Tornado's signature)
        if events & IOLoop.READ and self._reads:
            self._receive()
        if events & IOLoop.WRITE and not self.closed():
            self._flush()
        if events & IOLoop.ERROR and not events & (IOLoop.READ | IOLoop.WRITE) and not self.closed():
            self._lose()

    def _receive(self) -> None:
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._pass_on(data)
        else:
            self._lose()

    def _pass_on(self, data: bytes) -> None:
        try:
            self._owner.on_bytes(data)
        except BaseException:  # a bug of ours goes on to the loop's log; the caller must not wait for its answer
            self.reset()
            self._owner.on_lost()
            raise

    def pause_reading(self) -> None:
        """Leave what comes in the kernel, so that the caller is held."""
        self._reads = False
        self._update()

    def resume_reading(self) -> None:
        """Read again."""
        self._reads = True
        self._update()

    def is_gone(self) -> bool:
        """Ask the kernel whether the caller has left, also behind bytes that nobody has read (RELIABILITY 1, row 6)."""
        try:
            return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED
        except OSError:
            return True

    @property
    def acknowledged(self) -> int:
        """Bytes that the caller's side has taken, in all: the kernel takes megabytes before a slow reader has any."""
        try:
            waiting = fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(_INT.size))
        except OSError:
            return self.progress
        return self.progress - int(_INT.unpack(waiting)[0])

    # -- writing ---------------------------------------------------------------------------------------------------

    def send(self, pieces: Sequence[bytes]) -> None:
        """Write at once what the kernel takes; keep the rest and report `on_drained` when it has gone."""
        if self.closed():
            return
        size = sum(map(len, pieces))
        if self._unsent:
            self._keep(pieces, size)
            return
        taken = self._write(pieces, size)
        if taken == size or self.closed():
            return
        self._keep(pieces, size)
        self._advance(taken)
        self._update()

    def _write(self, pieces: Sequence[bytes | memoryview], size: int) -> int:
        """Return how much the kernel took; on a fault the stream is closed."""
        try:
            if size <= _JOINED_BYTES:
                taken = self.socket.send(b"".join(pieces))
            else:
                taken = self.socket.sendmsg(pieces[:_PIECES_A_WRITE])
        except BlockingIOError:
            return 0
        except OSError:
            self._lose()
            return 0
        self.progress += taken
        return taken

    def _keep(self, pieces: Sequence[bytes], size: int) -> None:
        self._unsent.extend(memoryview(piece) for piece in pieces if piece)
        self.backlog += size

    def _advance(self, taken: int) -> None:
        self.backlog -= taken
        unsent = self._unsent
        while taken:
            piece = unsent.popleft()
            if len(piece) > taken:
                unsent.appendleft(piece[taken:])
                return
            taken -= len(piece)

    def _flush(self) -> None:
        while self._unsent and not self.closed():
            pieces = list(self._unsent)[:_PIECES_A_WRITE]
            taken = self._write(pieces, sum(map(len, pieces)))
            if not taken:
                return
            self._advance(taken)
        if not self.closed():
            self._update()
            self._owner.on_drained()

    # -- closing ---------------------------------------------------------------------------------------------------

    def _update(self) -> None:
        if self.closed():
            return
        state = IOLoop.ERROR | (IOLoop.READ if self._reads else 0) | (IOLoop.WRITE if self._unsent else 0)
        if state != self._state:
            self._state = state
            self.io_loop.update_handler(self.fileno(), state)

    def _lose(self) -> None:
        if not self.closed():
            self.close()
            self._owner.on_lost()

    def finish_sending(self) -> None:
        """Say that no more will be written, and go on reading."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    def reset(self) -> None:
        """End by a reset: no caller can take what it has for the whole."""
        self._resets = True
        self.close()

    def close_fd(self) -> None:
        """Close in order, unless this is to be a reset (`reset_by_default`)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if self._resets else _IN_ORDER)
        super().close_fd()
