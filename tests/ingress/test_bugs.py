"""A bug of the gateway's own, met while a request is read: loud in the log, a cut for the client, never a 400."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from gateway.http.interfaces import Gate
from gateway.ingress.server import CallerServer
from gateway.ingress.timeouts import CallerTimeouts
from gateway.platform.asyncio_selector import run
from tests.harness.messages import proxy_request
from tests.harness.ports import LOOPBACK

if TYPE_CHECKING:
    from gateway.http.interfaces import Caller
    from gateway.http.message import Fault, RequestHead
    from gateway.platform.poller import Poller


class Mistake(Exception):  # noqa: N818 (what it stands for is a bug, whatever its name)
    """Stands for any bug."""


class BuggyGate(Gate):
    """A `Gate` that breaks down over each request."""

    def open(self, head: RequestHead, caller: Caller) -> NoReturn:
        """Break down."""
        raise Mistake(head, caller)

    def reject(self, fault: Fault, caller: Caller) -> NoReturn:
        """Break down."""
        raise Mistake(fault, caller)


async def meet(poller: Poller, data: bytes) -> tuple[list[Any], bytes | None, int]:
    """Send `data`; return what the loop was told, what came back (None: a reset), and the connections left."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context.get("exception")))
    listener = socket.create_server((LOOPBACK, 0))
    listener.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    server = CallerServer(
        BuggyGate(),
        poller,
        patience=CallerTimeouts(5.0, 5.0, 1.0, 5.0),
        max_connections=10,
        address_of=str,
        report=lambda _closed, _refused: None,
    )
    server.listen_on([listener])
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(data)
    try:
        heard: bytes | None = await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        heard = None
    writer.close()
    left = server.connections
    server.drain()
    server.close_all()
    return told, heard, left


@pytest.mark.parametrize("data", [proxy_request(), b"\0 no request\r\n\r\n"], ids=["request", "garbage"])
def test_a_bug_is_not_told_as_the_clients_fault(data: bytes) -> None:
    """The loop gets the bug with its cause, the client a reset in place of an answer, and no connection is kept."""
    told, heard, left = run(lambda poller: meet(poller, data))
    assert [type(bug.__context__ or bug) for bug in told] == [Mistake]
    assert (heard, left) == (None, 0)
