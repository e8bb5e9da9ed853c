"""Free ports on loopback, held until the program that was given one listens on it.

The decision it carries: a reserved port stays bound by a socket that never listens. Linux lets a second socket bind
it (both reuse the address and neither listened first), and hands it to nobody who asks for any free port, so
two tests can't be given the same one.
"""

from __future__ import annotations

import itertools
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"


_addresses: Final = itertools.count(1)


def fresh_address() -> str:
    """Return an address on loopback that no caller of this session had: what is limited by address begins anew."""
    number = next(_addresses)
    return f"127.{100 + number // 62_500}.{1 + number // 250 % 250}.{1 + number % 250}"


class ReservedPort:
    """One TCP port on 127.0.0.1 that is this test's own from now until `release`."""

    __slots__ = ("_socket", "number")

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((LOOPBACK, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give the port back; harmless when done twice."""
        self._socket.close()


def refused_port() -> int:
    """Return a port on which nobody listens, so that a connection to it is refused."""
    port = ReservedPort()
    port.release()
    return port.number
