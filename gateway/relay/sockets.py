"""Whether a pooled connection is still open, asked of the kernel a moment before a request goes out on it.

libcurl looks at its idle connections at most once a second; in between it writes a request into a connection that the
origin has closed, and for a POST that ends as an error or as a second execution (RELIABILITY 1, rows 1 and 2).
"""

from __future__ import annotations

import socket
import struct
from typing import Final

UNKNOWN: Final = -1
CLOSED: Final = -2
_ESTABLISHED: Final = 1  # the first byte of struct tcp_info: include/net/tcp_states.h

_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds


def borrow(fd: int) -> socket.socket:
    """Return a socket object over somebody else's descriptor; `detach()` it before it goes out of scope."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fd)


def reset_on_close(fd: int) -> None:
    """Make the end of a connection a reset, so that what was sent on it never looks whole; -1: no connection."""
    if fd >= 0:
        sock = borrow(fd)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.detach()


class Sockets:
    """Which descriptor stands behind which local port: libcurl names a connection by its port alone.

    Each is kept as a socket object to ask the kernel with; it is borrowed, and given up before it could be closed here.
    """

    def __init__(self) -> None:
        self._unnamed: set[int] = set()
        self._of_port: dict[int, socket.socket] = {}
        self._port_of: dict[int, int] = {}

    def opened(self, fd: int) -> None:
        """Note a new descriptor; it has no local port yet."""
        port = self._port_of.pop(fd, None)
        if port is not None:
            self._of_port.pop(port).detach()
        self._unnamed.add(fd)

    def forget(self) -> None:
        """Give every borrowed descriptor back unclosed: they are libcurl's, or by now somebody else's."""
        for sock in self._of_port.values():
            sock.detach()
        self._of_port.clear()
        self._port_of.clear()
        self._unnamed.clear()

    def established(self, port: int) -> int:
        """Return the descriptor of the connection from this local port; CLOSED where it has ended, or UNKNOWN."""
        if self._unnamed:
            self._name()
        sock = self._of_port.get(port)
        if sock is None:
            return UNKNOWN
        try:
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return CLOSED
        return sock.fileno() if state == _ESTABLISHED else CLOSED

    def count_open(self) -> int:
        """Return how many connections stand: libcurl does not say which of those it opened it has closed since."""
        if self._unnamed:
            self._name()
        known = list(self._port_of.items())  # a look may name another one meanwhile
        return sum(_local_port(fd) == port and self.established(port) >= 0 for fd, port in known)

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
            self._port_of.pop(former.detach(), None)
        self._of_port[port] = borrow(fd)
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
