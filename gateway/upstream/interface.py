"""The seam between an exchange and whatever reaches the origin.

An exchange opens a transfer and is told of its progress by three calls; it never learns that libcurl is behind them.
Flow tests stand a scripted upstream here. Everything crosses the seam in batches: a head, the pieces that came with it
and the end arrive in one call, so that a small answer becomes one write to the caller.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Request:
    """What is sent to the origin; a plain class, since one is made for each request.

    `lines` are field lines without line ends. `length` is the content's size in bytes, -1 where it is not known
    (chunked), None without content. `content` is the whole of it where it is at hand, else it is fed piece by piece.
    `repeatable` says that the request may be executed twice: a free GET, never anything that is paid for.
    """

    __slots__ = ("content", "length", "lines", "method", "repeatable", "url")

    def __init__(  # noqa: PLR0913 (a record, in the order of its way over the wire)
        self, method: str, url: str, lines: list[bytes], length: int | None, content: bytes | None, *, repeatable: bool
    ) -> None:
        self.method = method
        self.url = url
        self.lines = lines
        self.length = length
        self.content = content
        self.repeatable = repeatable


@dataclass(frozen=True, slots=True)
class OriginFailure:
    """Why there is no whole answer: its type, and whether the origin may have seen the request."""

    error_type: str
    detail: str
    sent: bool


class Answer(Protocol):
    """Told of a transfer's progress. Never called from within `open`, nor after `abort`."""

    def on_answer(self, head: tuple[int, list[bytes]] | None, pieces: Sequence[bytes], *, whole: bool) -> None:
        """Take the head (status and raw field lines) once, content pieces, and at last the end."""

    def on_failure(self, failure: OriginFailure) -> None:
        """Take the end of a transfer that has no whole answer."""

    def on_room(self) -> None:
        """Request content may be fed again."""


class Transfer(Protocol):
    """One request under way."""

    def feed(self, piece: bytes) -> bool:
        """Queue request content; False asks to stop until `on_room`."""

    def feed_end(self) -> None:
        """Say that the request content is whole."""

    def hold(self) -> None:
        """Take no more from the origin for now."""

    def resume(self) -> None:
        """Take from the origin again."""

    def abort(self) -> None:
        """End it at once, by a reset where the request was not sent whole; nothing more is told."""


class Upstream(ABC):
    """Opens transfers."""

    @abstractmethod
    def open(self, request: Request, answer: Answer) -> Transfer:
        """Start a transfer."""
