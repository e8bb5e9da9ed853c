"""Requests that come while the one before them is being answered (RFC 9112 section 9.3.2): they wait here, in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.http.message import Fault, RequestHead
    from gateway.ingress.connection import Connection


class PipelinedRequests:
    """Between the reader and its connection. One read bounds it: none follows while any waits."""

    __slots__ = ("_connection", "_late", "_replays")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._late: deque[Callable[[], None]] = deque()
        self._replays = False  # what waited is being taken up

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._late

    @property
    def _is_behind(self) -> bool:
        """Whether what comes now belongs to a later request than the one being answered."""
        return (bool(self._late) and not self._replays) or self._connection.has_whole_request

    def on_head(self, head: RequestHead, *, keeps_alive: bool) -> None:
        """Take a head."""
        if self._is_behind:
            self._late.append(lambda: self.on_head(head, keeps_alive=keeps_alive))
        else:
            self._connection.on_head(head, keeps_alive=keeps_alive)

    def on_content(self, piece: bytes) -> None:
        """Take content."""
        if self._is_behind:
            self._late.append(lambda: self.on_content(piece))
        else:
            self._connection.on_content(piece)

    def on_end(self) -> None:
        """Take the end of a request."""
        if self._is_behind:
            self._late.append(self.on_end)
        else:
            self._connection.on_end()

    def on_fault(self, fault: Fault) -> None:
        """Take what makes it no request."""
        if self._is_behind:
            self._late.append(lambda: self.on_fault(fault))
        else:
            self._connection.on_fault(fault)

    def replay(self) -> bool:
        """Take up what waits, until a request is being answered; False within itself, which then goes on."""
        if self._replays:
            return False
        self._replays = True
        while self._late and not self._is_behind:
            self._late.popleft()()
        self._replays = False
        return True

    def clear(self) -> None:
        """Forget what waits."""
        self._late.clear()
