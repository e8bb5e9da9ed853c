"""One epoll set for all sockets of a worker, and one batch of their events a turn.

asyncio's own way from a ready socket to its handler takes 4 microseconds, and adding and removing one 11. Here callers'
sockets and libcurl's are told directly, within the wait itself, and asyncio is given what is left.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

READ: Final = 1  # EPOLLIN
WRITE: Final = 4  # EPOLLOUT
BROKEN: Final = 24  # EPOLLERR and EPOLLHUP, told also where nobody asked
_EVENTS_A_TURN: Final = 256


class Poller:
    """The set. `call(events)` is called whenever one of the events asked for holds, or the descriptor is BROKEN."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._lasts: list[Callable[[], bool]] = []

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Begin to watch a descriptor."""
        self._epoll.register(fd, events)
        self._calls[fd] = call

    def change(self, fd: int, events: int) -> None:
        """Watch for other events."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Watch no longer; before the descriptor is closed."""
        del self._calls[fd]
        self._epoll.unregister(fd)

    def at_end(self, call: Callable[[], bool]) -> None:
        """Call at the end of each turn, for what a batch does once; it returns whether there was anything to do."""
        self._lasts.append(call)

    def not_at_end(self, call: Callable[[], bool]) -> None:
        """Call it no longer."""
        self._lasts.remove(call)

    def take(self, wait_seconds: float) -> list[tuple[int, int]]:
        """Wait for events (-1: without end), tell those who watch, and return the rest: (descriptor, events)."""
        if self._end():  # begun outside of a turn; what it led to may want another wait
            wait_seconds = 0.0
        rest = []
        for event in self._epoll.poll(wait_seconds, _EVENTS_A_TURN):
            call = self._calls.get(event[0])
            if call is None:  # asyncio's, or closed by one before it in this batch
                rest.append(event)
            else:
                self._tell(call, event[1])
        self._end()
        return rest

    @staticmethod
    def _tell(call: Callable[[int], None], events: int) -> None:
        try:
            call(events)
        except Exception as bug:  # noqa: BLE001 (ours: it is reported, and the other sockets are told theirs)
            asyncio.get_running_loop().call_exception_handler({"message": "bug behind a socket", "exception": bug})

    def _end(self) -> bool:
        done = False
        for call in self._lasts:
            try:
                done = call() or done
            except Exception as bug:  # noqa: BLE001 (the same)
                asyncio.get_running_loop().call_exception_handler({"message": "bug in a turn", "exception": bug})
        return done

    # -- for asyncio's own descriptors ------------------------------------------------------------------------------

    def register(self, fd: int, events: int) -> None:
        """Watch a descriptor whose events `take` returns."""
        self._epoll.register(fd, events)

    def unregister(self, fd: int) -> None:
        """Watch it no longer."""
        self._epoll.unregister(fd)

    def close(self) -> None:
        """Watch nothing any more."""
        self._epoll.close()
