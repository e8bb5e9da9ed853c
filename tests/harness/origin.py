"""An origin server that follows a script: each connection runs a function that reads, answers, stalls or breaks.

The decision it carries: the origin alone knows what was executed. A request counts as executed from the moment that
its body arrived whole, whatever the script does then; that is what fal would bill.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from tests.harness.client import LINGER_RESET
from tests.harness.messages import http_response
from tests.harness.ports import LOOPBACK
from tests.harness.waiting import until
from tests.harness.wire import Head, Truncated, WireReader, framed_pieces, read_head

if TYPE_CHECKING:
    import ssl

FAL_HOSTS: Final = ("fal.run", "queue.fal.run", "rest.fal.ai", "api.fal.ai")
TIMEOUT_SECONDS: Final = 30.0
KEPT_BYTES: Final = 1 << 20
BACKLOG: Final = 1024


@dataclass(slots=True)
class Received:
    """One request as the origin saw it. `body` keeps the first MiB, `size` and `sha256` tell of all of it."""

    head: Head
    connection: int
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    whole: bool = False
    sha256: str = ""

    @property
    def method(self) -> str:
        """Method of the request line."""
        return self.head.start.split(b" ")[0].decode()

    @property
    def target(self) -> bytes:
        """Request target, byte for byte."""
        return self.head.start.split(b" ")[1]


class OriginConnection:
    """One accepted connection, in the hands of the script. `number` counts from 1."""

    def __init__(self, origin: ScriptedOrigin, connection: socket.socket, number: int) -> None:
        self.socket = connection
        self.reader = WireReader(connection)
        self.number = number
        self._origin = origin

    def read_head(self) -> Received | None:
        """Read the next request's head, and count it as begun; None where the peer has left in order instead."""
        if self.reader.ended():
            return None
        received = Received(read_head(self.reader), self.number)
        self._origin.requests.append(received)
        return received

    def read_body(self, received: Received) -> Received:
        """Read the rest of a request, and count it as executed once it is whole."""
        digest = hashlib.sha256()
        for piece in framed_pieces(self.reader, received.head):
            digest.update(piece)
            received.size += len(piece)
            received.body += piece[: max(0, KEPT_BYTES - len(received.body))]
        received.sha256 = digest.hexdigest()
        received.whole = True
        return received

    def read_request(self) -> Received | None:
        """Read a whole request; None where the peer has left in order before it."""
        received = self.read_head()
        return None if received is None else self.read_body(received)

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def wait_for_leaving(self) -> str:
        """Read on until the peer leaves; return how: `fin` or `reset`. TimeoutError where it stays."""
        try:
            for _ in self.reader.rest():
                pass
        except Truncated as cut:
            return cut.how
        return "fin"

    def reset(self) -> None:
        """Break the connection by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self.socket.close()

    def close(self) -> None:
        """End the connection in order; harmless when done twice."""
        self.socket.close()


class ScriptedOrigin:
    """A server on a free port of loopback that runs `script` for each connection, in a thread of its own.

    A peer that leaves while the script reads or writes ends that script quietly; any other exception in a script is
    raised by `close`, so that an assertion there fails the test.
    """

    def __init__(self, script: Callable[[OriginConnection], None], *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self._script = script
        self._tls = tls
        self._faults: list[Exception] = []
        self._open: list[OriginConnection] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((LOOPBACK, 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="scripted-origin", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def overrides(self) -> str:
        """Value of FALGW_ORIGIN_OVERRIDES that leads all of fal's hosts here."""
        return overrides_to(self.port, scheme="http" if self._tls is None else "https")

    @property
    def executions(self) -> list[Received]:
        """Return the requests that arrived whole."""
        return [request for request in self.requests if request.whole]

    def wait_for_requests(self, count: int) -> list[Received]:
        """Wait until so many requests have begun; return them."""
        until(lambda: len(self.requests) >= count, f"{count} requests at the origin")
        return self.requests

    def close(self) -> None:
        """Stop listening, end every connection and script; raise what went wrong in a script, if anything did."""
        self._shut(self._listener)
        self._acceptor.join(TIMEOUT_SECONDS)
        for connection in self._open:
            self._shut(connection.socket)
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS)
        if self._faults:
            raise self._faults.pop(0)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return  # closed: that is how this loop ends
            self.connections += 1
            thread = threading.Thread(target=self._run, args=(accepted, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, accepted: socket.socket, number: int) -> None:
        accepted.settimeout(TIMEOUT_SECONDS)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with accepted, self._secure(accepted) as secured:
                connection = OriginConnection(self, secured, number)
                self._open.append(connection)
                self._script(connection)
        except (Truncated, OSError):
            return  # the peer has left, or the test is over
        except Exception as fault:  # noqa: BLE001 - carried to the test's own thread, which raises it in `close`
            self._faults.append(fault)

    def _secure(self, accepted: socket.socket) -> socket.socket:
        return accepted if self._tls is None else self._tls.wrap_socket(accepted, server_side=True)

    @staticmethod
    def _shut(listening_or_open: socket.socket) -> None:
        with contextlib.suppress(OSError):  # where it had ended already
            listening_or_open.shutdown(socket.SHUT_RDWR)
        listening_or_open.close()


def overrides_to(port: int, *, scheme: str = "http") -> str:
    """Return the value of FALGW_ORIGIN_OVERRIDES that leads all of fal's hosts to one port on loopback."""
    return ",".join(f"{host}={scheme}://{LOOPBACK}:{port}" for host in FAL_HOSTS)


def answering(answer: Callable[[Received], bytes] | bytes | None = None) -> Callable[[OriginConnection], None]:
    """Return a script that keeps the connection and answers each whole request with these bytes, 200 by default."""

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(answer(request) if callable(answer) else answer or http_response())

    return script


def in_turn(*answers: bytes | None) -> Callable[[OriginConnection], None]:
    """Return a script that gives one answer after the other, over all connections; None ends the connection."""
    left = list(answers)

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            answer = left.pop(0)
            if answer is None:
                connection.close()
                return
            connection.send(answer)

    return script


StartOrigin = Callable[..., ScriptedOrigin]
"""What the fixture `start_origin` gives: `start(script)`."""
