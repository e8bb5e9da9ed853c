"""The callers' connections of one worker: how many, whose, and which one is closed when there is no room for another.

The decision: silence must not keep callers out. At the bound the oldest connection is closed on which no request was
admitted yet and none is under way: strangers come first. Where there is none, it is the kept connection that has been
idle for longest, if that was some seconds. One that is being answered is never closed; where there is nothing else, new
callers wait in the kernel's queue, since accepting until descriptors run out burns a core.

Above four fifths of the bound an address gets no connection beyond a quarter of it. Below, an address may have them
all, as an ingress that is no trusted proxy does. Addresses that are not counted (`address_of` gives an empty one) are
those of many callers: trusted proxies, and loopback, where proxies on the same machine come from.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import nsmallest
from operator import itemgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.ingress.connection import Connection

_CONTESTED: Final = 5  # one of so many connections is for addresses that have less than their share
_SHARES: Final = 4  # the share of one address is one of so many
_TRIES: Final = 64  # connections looked at for one that may be closed
_IDLE_SECONDS: Final = 5.0  # until a kept connection may be closed for another
_CANDIDATES: Final = 1024  # idle connections that may be closed between two looks


class ConnectionTable:
    """The connections."""

    def __init__(self, most: int) -> None:
        """Take how many there may be."""
        self._most = most
        self._contested_from = most - most // _CONTESTED
        self._most_of_one = max(1, most // _SHARES)
        self._addresses: dict[Connection, str] = {}
        self._counts: dict[str, int] = {}  # connections of each address that has any
        self._unadmitted: OrderedDict[Connection, None] = OrderedDict()  # no request was admitted yet, the oldest first
        self._idle: deque[tuple[float, Connection]] = deque()  # idle since when, the longest first, at the last look
        self.closed = 0  # to make room, since `take_counts`
        self.refused = 0  # for their address, since `take_counts`

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another."""
        return len(self._addresses) >= self._most

    def connections(self) -> list[Connection]:
        """Return all connections, the oldest first."""
        return list(self._addresses)

    def admits(self, address: str) -> bool:
        """Return whether an address may have one more; it is counted where not."""
        if not address or len(self._addresses) < self._contested_from:
            return True
        if self._counts.get(address, 0) < self._most_of_one:
            return True
        self.refused += 1
        return False

    def add(self, connection: Connection, address: str) -> None:
        """Count a new connection."""
        self._addresses[connection] = address
        self._unadmitted[connection] = None
        if address:
            self._counts[address] = self._counts.get(address, 0) + 1

    def discard(self, connection: Connection) -> None:
        """Count a connection no longer; harmless when done twice."""
        address = self._addresses.pop(connection, "")
        self._unadmitted.pop(connection, None)
        if not address:
            return
        if self._counts[address] > 1:
            self._counts[address] -= 1
        else:
            del self._counts[address]

    def make_room(self) -> bool:
        """Close a connection that waits for a request; False where there is none."""
        victim = self._oldest_unadmitted() or self._longest_idle()
        if victim is None:
            return False
        self.closed += 1
        victim.close()
        return True

    def _oldest_unadmitted(self) -> Connection | None:
        for _ in range(min(_TRIES, len(self._unadmitted))):
            connection, _ = self._unadmitted.popitem(last=False)
            if connection.was_admitted:
                continue
            self._unadmitted[connection] = None  # to the end, so that it does not stop the search the next time
            if connection.waiting_since is not None:
                return connection
        return None

    def _longest_idle(self) -> Connection | None:
        while self._idle:
            since, connection = self._idle.popleft()
            if connection in self._addresses and connection.waiting_since == since:
                return connection
        return None

    def look(self, now: float) -> None:
        """Find the connections that have been idle for longest, where one may be needed; `now` in monotonic seconds."""
        self._idle.clear()
        if len(self._addresses) < self._contested_from:
            return
        latest = now - _IDLE_SECONDS
        waiting = ((found.waiting_since, found) for found in self._addresses)
        idle = ((since, found) for since, found in waiting if since is not None and since < latest)
        self._idle.extend(nsmallest(_CANDIDATES, idle, key=itemgetter(0)))

    def take_counts(self) -> tuple[int, int]:
        """Return how many were closed to make room, and refused for their address, since the last time."""
        counts = (self.closed, self.refused)
        self.closed = self.refused = 0
        return counts
