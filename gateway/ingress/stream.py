"""A caller's socket as callbacks: no Future a read, none a write, no copy of what is read.

Tornado's `IOStream` answers each read with a Future and gathers in a buffer of its own; both are most of what a small
request costs, so callers have this in its place. Tornado accepts them, `Poller` tells what happens.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from gateway.platform.poller import BROKEN, READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.platform.poller import Poller

READ_BYTES: Final = 131_072
_FIRST_READ_BYTES: Final = 8_192  # a head and small content; a buffer of the full size costs a small request a tenth
_JOINED_BYTES: Final = 16_384  # below it one copy is cheaper than a gathering write
_PIECES_A_WRITE: Final = 512  # well under IOV_MAX
_QUEUED_BYTES: Final = 65_536  # what may wait in the kernel before the caller counts as behind
_UNSENT_BYTES: Final = 131_072
"""What the kernel takes ahead of what it can send. The rest of the relay's last window waits here (`backlog`)."""

_RECEIVED_BYTES: Final = 262_144
"""What the kernel keeps of content that an origin does not take, twice that by its own count (socket(7))."""

_LOOK_BYTES: Final = 65_536  # sent since the last look at what waits in the kernel
_UNSENT_QUERY: Final = 0x894B  # SIOCOUTQNSD, include/uapi/linux/sockios.h
_INT: Final = struct.Struct("i")  # what SIOCOUTQ, the same number as TIOCOUTQ, writes (tcp(7))
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
_IN_ORDER: Final = struct.pack("ii", 0, 0)
OPEN: Final = 1  # TCP_ESTABLISHED, include/net/tcp_states.h
ENDING: Final = 8  # TCP_CLOSE_WAIT


def prepare_listener(listener: socket.socket) -> None:
    """Set what accepted connections inherit: how they end, and how much they keep in both directions.

    The kernel ends them by a reset where nobody says otherwise, as when the process is killed: a caller whose answer
    ends with its connection (HTTP/1.0) would else take the part that it has for the whole. And it takes 128 KiB
    ahead of what it can send, in place of the four MiB that a fast start makes it take for one who then reads slowly.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)


class StreamOwner(Protocol):
    """Told of what happens on the socket."""

    def on_bytes(self, data: bytes) -> None:
        """Take what the caller sent."""

    def on_ended(self) -> None:
        """The caller sends no more; it may still read."""

    def on_drained(self) -> None:
        """Everything written has gone to the kernel."""

    def on_lost(self) -> None:
        """The caller has left, or the connection broke. The stream is closed by then."""


class CallerStream:
    """One accepted connection."""

    def __init__(self, connection: socket.socket, poller: Poller) -> None:
        connection.setblocking(False)  # noqa: FBT003 (the standard library's signature)
        self._socket = connection
        self._fd = connection.fileno()
        self._poller = poller
        self._interest = READ
        self._unsent: deque[memoryview] = deque()
        self.backlog = 0  # bytes that the kernel has not taken yet
        self.progress = 0  # bytes that it has taken, in all
        self.waits = False  # `on_drained` will tell when the kernel has room again
        self._looked_at = 0  # how much had been sent by then
        self.is_closed = False
        self._reads = True
        self._has_ended = False  # the caller sends no more
        self._most = _FIRST_READ_BYTES
        self._resets = False

    def start(self, owner: StreamOwner) -> None:
        """Begin to read."""
        self._owner = owner
        self._poller.watch(self._fd, self._interest, self._on_ready)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _on_ready(self, events: int) -> None:
        if events & READ and self._reads:
            self._receive()
        if events & WRITE and not self.is_closed:
            self._flush()
        if events & BROKEN and not events & (READ | WRITE) and not self.is_closed:
            self.lose()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(self._most)
        except BlockingIOError:
            return
        except OSError:
            self.lose()
            return
        if data:
            self._most = READ_BYTES if len(data) == self._most else _FIRST_READ_BYTES
            self._pass_on(data)
        else:
            self._has_ended = True
            self._update()
            self._owner.on_ended()

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

    def state(self) -> int:
        """Return what the kernel knows of the connection, also behind unread bytes.

        `OPEN`, `ENDING` (the caller sends no more), or anything else: it is broken.
        """
        try:
            return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return 0

    @property
    def acknowledged(self) -> int:
        """Bytes that the caller's side has taken, in all: the kernel takes megabytes before a slow reader has any."""
        return self.progress - self._queued(termios.TIOCOUTQ)

    def _queued(self, query: int) -> int:
        try:
            return int(_INT.unpack(fcntl.ioctl(self._fd, query, bytes(_INT.size)))[0])
        except OSError:
            return 0

    # -- writing ---------------------------------------------------------------------------------------------------

    def send(self, pieces: Sequence[bytes]) -> None:
        """Write at once what the kernel takes; keep the rest and report `on_drained` when it has gone."""
        if self.is_closed:
            return
        size = sum(map(len, pieces))
        if self._unsent:
            self._keep(pieces, size)
            return
        taken = self._write(pieces, size)
        if taken == size or self.is_closed:
            return
        self._keep(pieces, size)
        self._advance(taken)
        self._update()

    def falls_behind(self) -> bool:
        """Return whether more should wait for `on_drained`: so that what waits does so at the origin, and not here."""
        if self.backlog or self.waits:
            return True
        if self.progress - self._looked_at < _LOOK_BYTES or self.is_closed:
            return False
        self._looked_at = self.progress
        self.waits = self._queued(_UNSENT_QUERY) >= _QUEUED_BYTES
        if self.waits:
            self._update()
        return self.waits

    def _write(self, pieces: Sequence[bytes | memoryview], size: int) -> int:
        """Return how much the kernel took; on a fault the stream is closed."""
        try:
            if size <= _JOINED_BYTES:
                taken = self._socket.send(b"".join(pieces))
            else:
                taken = self._socket.sendmsg(pieces[:_PIECES_A_WRITE])
        except BlockingIOError:
            return 0
        except OSError:
            self.lose()
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
        while self._unsent and not self.is_closed:
            pieces = list(self._unsent)[:_PIECES_A_WRITE]
            taken = self._write(pieces, sum(map(len, pieces)))
            if not taken:
                return
            self._advance(taken)
        if not self.is_closed:
            self.waits = False
            self._update()
            self._owner.on_drained()

    # -- closing ---------------------------------------------------------------------------------------------------

    def _update(self) -> None:
        if self.is_closed:
            return
        interest = (READ if self._reads and not self._has_ended else 0) | (WRITE if self._unsent or self.waits else 0)
        if interest != self._interest:
            self._interest = interest
            self._poller.change(self._fd, interest)

    def lose(self) -> None:
        """Close, and tell the owner that the caller has left."""
        if not self.is_closed:
            self.close()
            self._owner.on_lost()

    def finish_sending(self) -> None:
        """Say that no more will be written, and go on reading."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    def reset(self) -> None:
        """End by a reset: no caller can take what it has for the whole."""
        self._resets = True
        self.close()

    def close(self) -> None:
        """Close in order, unless this is to be a reset (`prepare_listener`)."""
        if self.is_closed:
            return
        self.is_closed = True
        self._poller.forget(self._fd)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if self._resets else _IN_ORDER)
        self._socket.close()
