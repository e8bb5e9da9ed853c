"""The data listener: accepts callers while there is room (connections.py), bounds how long they take, and drains."""

from __future__ import annotations

import socket
from time import monotonic
from typing import TYPE_CHECKING, Final

from tornado.ioloop import PeriodicCallback
from tornado.netutil import add_accept_handler

from gateway.ingress.connection import Connection
from gateway.ingress.connections import ConnectionTable
from gateway.ingress.stream import CallerStream, prepare_listener
from gateway.ingress.timeouts import LOOK_SECONDS, CallerTimeouts

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.http.interfaces import Gate
    from gateway.platform.poller import Poller

_RESUME_SHARE: Final = 0.9
_REPORT_SECONDS: Final = 1.0


class CallerServer:
    """Serves HTTP/1.1 on listening sockets."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        gate: Gate,
        poller: Poller,
        *,
        patience: CallerTimeouts,
        max_connections: int,
        address_of: Callable[[str], str],
        report: Callable[[int, int], None],
    ) -> None:
        """Take where requests go, what watches sockets, and the most connections at once (well below RLIMIT_NOFILE).

        `address_of` gives the address that a peer is counted by, empty where it is not. `report(closed, refused)` hears
        at most once a second how many connections were closed to make room, and refused for their address.
        """
        self._gate, self._patience, self._most = gate, patience, max_connections
        self._poller = poller
        self._address_of, self._report = address_of, report
        self._table = ConnectionTable(max_connections)
        self._reported_at = 0.0
        self._sockets_listened: list[socket.socket] = []
        self._removers: list[Callable[[], None]] = []
        self._draining = False
        self._look = PeriodicCallback(self._look_after, LOOK_SECONDS * 1000)

    @property
    def connections(self) -> int:
        """How many callers are connected."""
        return len(self._table)

    @property
    def is_busy(self) -> bool:
        """Whether a caller waits for an answer, or has not taken all of one."""
        return any(not caller.is_idle for caller in self._table.connections())

    def listen_on(self, sockets: list[socket.socket]) -> None:
        """Begin to accept on sockets that are bound and listening."""
        for sock in sockets:
            prepare_listener(sock)
        self._sockets_listened = sockets
        self._look.start()
        self._accept()

    def _accept(self) -> None:
        self._removers = [add_accept_handler(sock, self._welcome) for sock in self._sockets_listened]

    def _stop_accepting(self) -> None:
        removers, self._removers = self._removers, []
        for remove in removers:
            remove()

    def _welcome(self, connection: socket.socket, address: object) -> None:
        peer = str(address[0]) if isinstance(address, tuple) else ""
        counted = self._address_of(peer)
        if not self._table.admits(counted):
            connection.close()
            return
        if self._table.is_full and not self._table.make_room():
            self._stop_accepting()  # this one is the last; the descriptors beside the bound have room for it
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller = Connection(
            CallerStream(connection, self._poller),
            self._gate,
            peer=peer,
            patience=self._patience,
            on_closed=self._closed,
        )
        caller.closing = self._draining
        self._table.add(caller, counted)
        caller.start()

    def _closed(self, caller: Connection) -> None:
        self._table.discard(caller)
        if not self._removers and not self._draining and len(self._table) <= self._most * _RESUME_SHARE:
            self._accept()

    def _look_after(self) -> None:
        now = monotonic()
        for caller in self._table.connections():
            caller.look(now)
        self._table.look(now)
        if not self._removers and not self._draining and self._table.make_room():
            self._accept()
        if now - self._reported_at >= _REPORT_SECONDS:
            self._reported_at = now
            closed, refused = self._table.take_counts()
            if closed or refused:
                self._report(closed, refused)

    def drain(self) -> None:
        """Accept no more; connections end with the answer that they wait for."""
        self._draining = True
        self._stop_accepting()
        for sock in self._sockets_listened:
            sock.close()
        for caller in self._table.connections():
            caller.closing = True

    def close_all(self) -> int:
        """Cut what is still open; returns how many were in the midst of an exchange."""
        self._look.stop()
        cut = 0
        for caller in self._table.connections():
            if caller.is_idle:
                caller.close()
            else:
                cut += 1
                caller.abandon()
        return cut
