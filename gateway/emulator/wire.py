"""One connection as an imitation uses it: write, wait, and break off in the ways that real origins break off.

Decision: an answer is written as raw bytes. Tornado's own writer would mend just what is to be broken (framing, 1xx
heads, trailers), while `HTTPConnection.write` before `write_headers` passes bytes through and still counts and awaits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Final

from tornado.iostream import StreamClosedError

if TYPE_CHECKING:
    from tornado.http1connection import HTTP1Connection

ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: close() sends RST and throws away what was not sent."""


class Wire:
    """The answering side of one exchange; every wait ends with StreamClosedError once the peer is gone."""

    __slots__ = ("_connection", "_gone", "_wake")

    def __init__(self, connection: HTTP1Connection) -> None:
        self._connection = connection
        self._gone = False
        self._wake = asyncio.Event()
        # A head and a short content are two writes: with Nagle the second waits 40 ms for a delayed acknowledgement.
        connection.stream.set_nodelay(True)

    @property
    def gone(self) -> bool:
        """Whether the connection has ended, from either side."""
        return self._gone

    async def write(self, data: bytes) -> None:
        """Write bytes and return when the kernel has taken them; raise StreamClosedError if the peer is gone."""
        if self._gone:
            raise StreamClosedError
        await self._connection.write(data)

    async def pause(self, seconds: float | None) -> None:
        """Return after some time (None: never), or as soon as `nudge` is called."""
        if self._gone:
            raise StreamClosedError
        if seconds is not None and seconds <= 0:
            return
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        if self._gone:
            raise StreamClosedError

    def nudge(self) -> None:
        """End a pause early."""
        self._wake.set()

    def lose(self) -> None:
        """Take note that the connection has ended."""
        self._gone = True
        self._wake.set()

    def finish(self) -> None:
        """End the exchange cleanly; the connection may carry another one."""
        self._connection.finish()

    def drop(self, *, reset: bool) -> None:
        """Close the connection now: by FIN, or by RST."""
        stream = self._connection.stream
        if reset and not stream.closed():
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        self._connection.close()
        self.lose()
