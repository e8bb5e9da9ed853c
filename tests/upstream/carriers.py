"""Stand-ins on both sides of a transfer: a carrier that does what the test says, an exchange that writes down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.upstream import transfers as engine
from gateway.upstream.clock import Clock
from gateway.upstream.interface import OriginFailure, Request
from gateway.upstream.timeouts import OriginTimeouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.upstream.transfer import Transfer

PHASES = OriginTimeouts(connect=10, first_byte=900, idle=300)
URL = "http://127.0.0.1:1/"
HEAD = (b"HTTP/1.1 200 OK\r\n", b"Content-Type: text/plain\r\n", b"\r\n")


def request(
    method: str = "POST", *, length: int | None = 2, content: bytes | None = b"{}", repeatable: bool = False
) -> Request:
    """Return a request; by default a small paid one."""
    return Request(method, URL, [], length, content, repeatable=repeatable)


def poll() -> Request:
    """Return a free GET."""
    return request("GET", length=None, content=None, repeatable=True)


def upload(length: int = -1) -> Request:
    """Return a request whose content is fed."""
    return request(length=length, content=None)


@dataclass(slots=True)
class Listener:
    """An exchange that writes down what it is told."""

    heads: list[tuple[int, list[bytes]]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    failures: list[OriginFailure] = field(default_factory=list)
    batches: int = 0
    rooms: int = 0
    whole: bool = False

    def on_answer(self, head: tuple[int, list[bytes]] | None, pieces: Sequence[bytes], *, whole: bool) -> None:
        """Note an answer's part."""
        assert not self.whole
        assert not self.failures
        self.batches += 1
        self.heads += [head] if head else []
        self.pieces += pieces
        self.whole = whole

    def on_failure(self, failure: OriginFailure) -> None:
        """Note the failure."""
        assert not self.whole
        assert not self.failures
        self.failures.append(failure)

    def on_room(self) -> None:
        """Note that there is room."""
        self.rooms += 1


@dataclass(slots=True)
class Carrier(engine.Carrier):
    """Carries nothing, and writes down what it is asked for; its time begins at 0."""

    clock: Clock = field(default_factory=Clock)
    started: list[tuple[Transfer, bool]] = field(default_factory=list)
    repaused: list[int] = field(default_factory=list)
    dropped: list[Transfer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock.now = 0.0

    def start(self, transfer: Transfer, *, fresh: bool) -> None:
        """Note a start."""
        self.started.append((transfer, fresh))

    def repause(self, transfer: Transfer) -> None:
        """Note the pause flags."""
        self.repaused.append(transfer.pauses)

    def drop(self, transfer: Transfer) -> None:
        """Note an end."""
        self.dropped.append(transfer)


def send(transfer: Transfer) -> None:
    """Let the transfer's request go out, as the carrier's call before sending does."""
    transfer.attempted = True


def answer(transfer: Transfer, *pieces: bytes) -> None:
    """Let an answer's head come, and content."""
    for line in HEAD:
        assert transfer.put_line(line)
    for piece in pieces:
        transfer.put(piece)
