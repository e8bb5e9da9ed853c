"""The sockets of connections to origins, and what the kernel knows of them that libcurl does not tell.

libcurl looks at its idle connections at most once a second. In between it writes a request into a connection that the
origin has closed, which for a POST ends as an error or as a second execution; and it takes whatever the origin wrote
after the last answer for the next one. handle.py says what is done against both.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
from array import array
from contextlib import suppress
from typing import Final

_ESTABLISHED: Final = 1  # the first byte of struct tcp_info: include/net/tcp_states.h

_BUF_LOCK: Final = 72  # SO_BUF_LOCK: include/uapi/asm-generic/socket.h
_RECEIVE_LOCK: Final = 2  # SOCK_RCVBUF_LOCK: include/uapi/linux/socket.h
_RECEIVED_AT: Final = 128  # tcpi_bytes_received: include/uapi/linux/tcp.h
_U64: Final = struct.Struct("=Q")
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
_UNACKNOWLEDGED: Final = 0x5411  # SIOCOUTQ (tcp(7)): bytes written to the socket that the peer has not acknowledged
_UNSENT: Final = 0x894B  # SIOCOUTQNSD: those of them that have not left this machine


def borrow(fd: int) -> socket.socket:
    """Return a socket object over somebody else's descriptor; `detach()` it before it goes out of scope."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fd)


def reset_on_close(fd: int) -> None:
    """Make the end of a connection a reset, so that what was sent on it never looks whole; -1: no connection."""
    if fd >= 0:
        sock = borrow(fd)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.detach()


class OriginSocket:
    """One connection to an origin. The descriptor is libcurl's: it is borrowed, and given back before it is closed."""

    __slots__ = (
        "_count",
        "_poll",
        "_port",
        "_sock",
        "fd",
        "is_corked",
        "is_free",
        "is_retired",
        "is_secure",
        "is_used",
        "segment_bytes",
    )

    def __init__(self, fd: int, port: int) -> None:
        """Take the descriptor and its local port, by which it is known again."""
        self.fd = fd
        self._port = port
        self.is_free = False  # its receive buffer is left to the kernel
        self.is_used = False  # a request has gone out on it: the next one is on a reused connection
        self.is_secure = False  # it speaks TLS
        self.is_retired = False
        self.is_corked = False
        self.segment_bytes = 0
        self._sock = borrow(fd)
        self._count = array("i", [0])
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN | select.POLLRDHUP)

    def forget(self) -> None:
        """Give the descriptor back unclosed: it is libcurl's, or by now another owner's."""
        self._sock.detach()

    def is_established(self) -> bool:
        """Return whether the connection is open in both directions."""
        try:
            return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED
        except OSError:
            return False

    def is_open(self) -> bool:
        """Return whether the descriptor is still this connection's, and open in both directions."""
        return _local_port(self.fd) == self._port and self.is_established()

    def bound_receiving(self, size: int) -> None:
        """Bound what the kernel keeps for the reader, in bytes; it no longer grows by itself."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def bound_sending(self, size: int) -> None:
        """Bound what the kernel takes ahead of what it can send, in bytes."""
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def receive_buffer_bytes(self) -> int:
        """Return the size of the receive buffer, as the kernel counts it."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def stop_growing(self) -> None:
        """Let the receive buffer grow no further."""
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, _BUF_LOCK, _RECEIVE_LOCK)
        except OSError:  # a kernel before 5.16: setting a size locks it, too, and the kernel doubles what is set
            self.bound_receiving(self.receive_buffer_bytes() // 2)

    def widen(self, size: int) -> None:
        """Let the kernel choose the size again, from this one on: it does where more arrives a round trip than before.

        The bound of the window does not follow a size that is set, but it does follow the kernel's own.
        """
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, size)
        self._sock.setsockopt(socket.SOL_SOCKET, _BUF_LOCK, 0)

    def received_bytes(self) -> int:
        """Return how much the kernel has received since the connection was opened; 0 where it does not say."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + _U64.size)
        except OSError:
            return 0
        return int(_U64.unpack_from(info, _RECEIVED_AT)[0]) if len(info) == _RECEIVED_AT + _U64.size else 0

    def is_quiet(self) -> bool:
        """Return whether the origin has neither closed the connection nor written what was not read."""
        return not self._poll.poll(0)

    def retire(self) -> None:
        """Shut an idle connection down that the origin has closed, or has written to without a request."""
        self.is_retired = True
        with suppress(OSError):  # reset by the origin
            self._sock.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Keep in the kernel the end of what is written from now on (TCP_CORK), until `release`.

        If the connection is closed meanwhile, what is held is never sent: a close is a reset from here on.
        """
        if self.segment_bytes == 0:
            self.segment_bytes = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if not self.is_corked:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            self.is_corked = True

    def release(self, *, is_last: bool) -> bool:
        """Send what is held; False where libcurl has closed the connection since.

        `is_last`: nothing is written behind it before the next `hold`. Then the cork stays, and what is held is pushed
        out past it (TCP_NODELAY in tcp(7)): one call for each request in place of two.
        """
        try:
            if is_last:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
                self.is_corked = False
        except OSError:
            return False
        return True

    def unacknowledged_bytes(self) -> int:
        """Return how much of what was written the origin's kernel has not acknowledged."""
        return self._ask(_UNACKNOWLEDGED)

    def unsent_bytes(self) -> int:
        """Return how much of what was written has not been sent."""
        return self._ask(_UNSENT)

    def _ask(self, what: int) -> int:
        try:
            fcntl.ioctl(self.fd, what, self._count)
        except OSError:
            return 0
        return self._count[0]


class Sockets:
    """Which socket has which local port: libcurl names a connection by its port alone."""

    def __init__(self) -> None:
        self._unnamed: set[int] = set()
        self._of_port: dict[int, OriginSocket] = {}
        self._port_of: dict[int, int] = {}

    def opened(self, fd: int) -> None:
        """Note a new descriptor; it has no local port yet."""
        port = self._port_of.pop(fd, None)
        if port is not None:
            self._of_port.pop(port).forget()
        self._unnamed.add(fd)

    def forget(self) -> None:
        """Give every borrowed descriptor back unclosed: they are libcurl's, or by now another owner's."""
        for known in self._of_port.values():
            known.forget()
        self._of_port.clear()
        self._port_of.clear()
        self._unnamed.clear()

    def find(self, port: int) -> OriginSocket | None:
        """Return the socket of the connection from this local port."""
        if self._unnamed:
            self._name()
        return self._of_port.get(port)

    def count_open(self) -> int:
        """Return how many connections are open: libcurl does not say which of those it opened it has closed since."""
        if self._unnamed:
            self._name()
        return sum(one.is_open() for one in list(self._of_port.values()))

    def _name(self) -> None:
        for fd in list(self._unnamed):
            port = _local_port(fd)
            if port == 0:  # not connected yet
                continue
            self._unnamed.discard(fd)
            if port > 0:
                self._keep(fd, port)

    def _keep(self, fd: int, port: int) -> None:
        former = self._of_port.pop(port, None)  # closed since, and the port given to another
        if former is not None:
            former.forget()
            self._port_of.pop(former.fd, None)
        self._of_port[port] = OriginSocket(fd, port)
        self._port_of[fd] = port


def _local_port(fd: int) -> int:
    """Return the local port, 0 without one, -1 where the descriptor is gone."""
    try:
        sock = borrow(fd)
    except OSError:
        return -1
    try:
        return int(sock.getsockname()[1])
    except (OSError, IndexError, TypeError):  # closed, or the number now belongs to something that is no TCP socket
        return -1
    finally:
        sock.detach()
