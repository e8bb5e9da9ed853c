"""One epoll set for all callers of a worker; Tornado's loop watches its one descriptor.

Tornado's loop takes 4 microseconds from a readable socket to the handler, and 11 to add and remove one; a set of our
own takes half a one, since a batch of ready sockets costs the loop one callback (PERFORMANCE 3).
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Final

from tornado.ioloop import IOLoop

if TYPE_CHECKING:
    from collections.abc import Callable

READ: Final = 1  # EPOLLIN
WRITE: Final = 4  # EPOLLOUT
BROKEN: Final = 24  # EPOLLERR and EPOLLHUP, told also where nobody asked
_EVENTS_A_TURN: Final = 256


class Poller:
    """The set. Belongs to the running loop; whoever makes it calls `close()`."""

    def __init__(self) -> None:
        self._loop = IOLoop.current()
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._loop.add_handler(self._epoll.fileno(), self._on_ready, IOLoop.READ)

    def add(self, fd: int, interest: int, call: Callable[[int], None]) -> None:
        """Watch a descriptor: `call(events)` whenever one of `interest` holds, or it is BROKEN."""
        self._epoll.register(fd, interest)
        self._calls[fd] = call

    def change(self, fd: int, interest: int) -> None:
        """Watch for something else."""
        self._epoll.modify(fd, interest)

    def remove(self, fd: int) -> None:
        """Watch no longer; before the descriptor is closed."""
        del self._calls[fd]
        self._epoll.unregister(fd)

    def _on_ready(self, _fd: int, _events: int) -> None:
        for fd, events in self._epoll.poll(0, _EVENTS_A_TURN):
            call = self._calls.get(fd)
            if call is not None:  # else closed by one before it in this batch
                self._tell(call, events)

    @staticmethod
    def _tell(call: Callable[[int], None], events: int) -> None:
        try:
            call(events)
        except Exception as bug:  # noqa: BLE001 (ours: it is reported, and the other callers hear theirs)
            asyncio.get_running_loop().call_exception_handler({"message": "bug behind a caller", "exception": bug})

    def close(self) -> None:
        """Watch nobody."""
        self._loop.remove_handler(self._epoll.fileno())
        self._epoll.close()
