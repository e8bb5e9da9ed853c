"""Which connection is closed when there is no room for another, and which address gets no more."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn

import pytest

from gateway.http.interfaces import Gate
from gateway.ingress.connection import Connection
from gateway.ingress.connections import ConnectionTable
from gateway.ingress.stream import CallerStream
from gateway.ingress.timeouts import CallerTimeouts
from gateway.platform.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.http.interfaces import Caller
    from gateway.http.message import Fault, RequestHead

MOST: Final = 20
CONTESTED_FROM: Final = 16
SHARE: Final = 5
IDLE_SECONDS: Final = 6.0
ADDRESS: Final = "192.0.2.7"
PATIENCE: Final = CallerTimeouts(60.0, 60.0, 0, 600.0)


class NoGate(Gate):
    """A `Gate` that nothing comes to."""

    def open(self, head: RequestHead, caller: Caller) -> NoReturn:
        """Expect nothing."""
        raise AssertionError(head, caller)

    def reject(self, fault: Fault, caller: Caller) -> NoReturn:
        """Expect nothing."""
        raise AssertionError(fault, caller)


@pytest.fixture
def table() -> ConnectionTable:
    """Return an empty table."""
    return ConnectionTable(MOST)


@pytest.fixture
def join(table: ConnectionTable) -> Iterator[Callable[..., Connection]]:
    """Return `join(address, admitted=...)`: one more connection in the table."""
    poller = Poller()
    with ExitStack() as stack:

        def add(address: str = "", *, admitted: bool = False) -> Connection:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            stream = CallerStream(ours, poller)
            connection = Connection(stream, NoGate(), peer="", patience=PATIENCE, on_closed=table.discard)
            connection.was_admitted = admitted
            connection.start()
            stack.callback(connection.close)
            table.add(connection, address)
            return connection

        yield add
    poller.close()


def closed(table: ConnectionTable, connections: list[Connection]) -> list[int]:
    """Return the places of the connections that are in the table no more."""
    left = table.connections()
    return [place for place, connection in enumerate(connections) if connection not in left]


def test_the_oldest_stranger_is_closed_first(table: ConnectionTable, join: Callable[..., Connection]) -> None:
    """Before any kept connection, however long that was idle."""
    connections = [join(admitted=True) for _ in range(MOST - 2)] + [join(), join()]
    table.look(monotonic() + IDLE_SECONDS)
    assert table.make_room()
    assert closed(table, connections) == [MOST - 2]
    assert table.make_room()
    assert closed(table, connections) == [MOST - 2, MOST - 1]
    assert table.make_room()
    assert closed(table, connections) == [0, MOST - 2, MOST - 1]


def test_the_longest_idle_is_closed_next(table: ConnectionTable, join: Callable[..., Connection]) -> None:
    """A kept connection is closed for another where it has been idle for some seconds, as of the last look."""
    connections = [join(admitted=True) for _ in range(MOST)]
    assert table.is_full
    table.look(monotonic())
    assert not table.make_room()
    table.look(monotonic() + IDLE_SECONDS)
    assert [table.make_room() for _ in range(2)] == [True, True]
    assert closed(table, connections) == [0, 1]
    assert table.take_counts() == (2, 0)
    assert table.take_counts() == (0, 0)


def test_an_address_has_its_share_where_connections_are_few(
    table: ConnectionTable, join: Callable[..., Connection]
) -> None:
    """It may have all but the last fifth; there, others get theirs, and it does not, until some have ended."""
    connections = []
    while table.admits(ADDRESS):
        connections.append(join(ADDRESS))
    assert len(connections) == CONTESTED_FROM
    assert table.admits("")
    assert table.admits("198.51.100.1")
    others = [join("198.51.100.1") for _ in range(MOST - CONTESTED_FROM)]
    for connection in connections[SHARE:]:
        connection.close()
    assert table.admits(ADDRESS)
    assert len(table) == SHARE + len(others)
    assert table.take_counts() == (0, 1)
