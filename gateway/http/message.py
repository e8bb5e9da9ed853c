"""A caller's request as values, free of the connection that it came on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.http.fields import Fields

UNKNOWN_LENGTH = -1
"""Length of content that comes in chunks."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why bytes are no request, or how one went wrong on its way: a type of problem.py and a sentence."""

    error_type: str
    detail: str


class RequestHead:
    """Method, target and fields of a request (RFC 9112). `path` is the target's path and query, whatever its form.

    `length` is the content's size in bytes, UNKNOWN_LENGTH for chunks, None without content. `peer` is the address at
    the other end of the socket. `received_at` is in monotonic seconds.
    """

    __slots__ = ("expects_continue", "fields", "is_http_10", "length", "method", "path", "peer", "received_at")

    def __init__(  # noqa: PLR0913 (a record, made in one place)
        self,
        method: str,
        path: bytes,
        *,
        fields: Fields,
        length: int | None,
        expects_continue: bool,
        is_http_10: bool,
        peer: str,
        received_at: float,
    ) -> None:
        self.method = method
        self.path = path
        self.fields = fields
        self.length = length
        self.expects_continue = expects_continue
        self.is_http_10 = is_http_10
        self.peer = peer
        self.received_at = received_at
