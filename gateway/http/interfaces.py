"""The seam between an ingress and the exchanges: what each asks of the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.http.message import Fault, RequestHead


class Caller(ABC):
    """Who sent a request, as its exchange sees it."""

    @abstractmethod
    def falls_behind(self) -> bool:
        """Return whether the caller takes less than it is sent; then `on_drained` tells when to send more."""

    @abstractmethod
    def hold_content(self) -> None:
        """Read no more of the request for now."""

    @abstractmethod
    def resume_content(self) -> None:
        """Read the request again."""

    @abstractmethod
    def proceed(self) -> None:
        """Tell a caller that waits with its content to send it (RFC 9110 section 10.1.1)."""

    @abstractmethod
    def respond(self, status: int, lines: Sequence[bytes], length: int | None) -> None:
        """Begin an answer: field lines with their ends; `length` None where it is not known. Sent with what follows."""

    @abstractmethod
    def send(self, pieces: Sequence[bytes], *, last: bool) -> None:
        """Send the head if it is still here, content, and with `last` the end of the answer."""

    @abstractmethod
    def cut(self) -> None:
        """Break off: the caller sees a reset and cannot take what it has for the whole."""


class Handler(ABC):
    """An exchange, as its connection sees it."""

    @abstractmethod
    def on_content(self, piece: bytes) -> None:
        """Take a piece of the request's content."""

    @abstractmethod
    def on_end(self) -> None:
        """The request is whole."""

    @abstractmethod
    def on_drained(self) -> None:
        """The caller has caught up: there is room for more."""

    @abstractmethod
    def on_broken(self, fault: Fault | None) -> None:
        """The caller has left (None), or its request went wrong, which can be answered if nothing was yet."""


class Gate(ABC):
    """Where requests go."""

    @abstractmethod
    def open(self, head: RequestHead, caller: Caller) -> Handler:
        """Take a request. The handler may have answered by the time that it is returned."""

    @abstractmethod
    def reject(self, fault: Fault, caller: Caller) -> None:
        """Answer what was no request."""
