"""One answer's head and framing in HTTP/1.1 bytes (RFC 9112 section 6), such that a cut always shows.

Content goes out under Content-Length or in chunks; only an HTTP/1.0 caller and an unknown length leave the close of the
connection as its end. The head says whether the connection stays open: it does not where the caller or the answer ends
it, nor behind a 426, where bytes of another protocol may follow (RFC 9110 section 15.5.22).
"""

from __future__ import annotations

from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.http.message import RequestHead

_STATUS_LINES: Final = MappingProxyType(
    {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus}
)
_WITHOUT_CONTENT: Final = (204, 304)
_WITHOUT_LENGTH: Final = 204
_UPGRADE_REQUIRED: Final = 426
_CLOSE: Final = b"Connection: close\r\n"
_CLOSE_UPGRADE: Final = b"Connection: upgrade, close\r\n"
_STAY_10: Final = b"Connection: keep-alive\r\n"


SWALLOWED_BYTES: Final = 65_536
"""What may be left of a refused request for the connection to be kept."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def stays_in_step(request: RequestHead | None, *, whole: bool, waits_for_continue: bool) -> bool:
    """Return whether another request can follow one that is answered now; `whole`: all of it has come."""
    if request is None:
        return False
    if whole or request.length is None:
        return True
    return not waits_for_continue and 0 <= request.length <= SWALLOWED_BYTES


class Framing:
    """One answer's framing. `closes`: the connection ends with it. The head is sent with the first content."""

    __slots__ = ("_chunked", "_head", "_left", "closes")

    def __init__(
        self, status: int, lines: Sequence[bytes], length: int | None, *, request: RequestHead | None, may_stay: bool
    ) -> None:
        """Take field lines with their ends, the length in bytes (None: not known), and what is answered.

        `request` None: what came was no request. `may_stay`: the connection could serve another request.
        """
        is_head = request is not None and request.method == "HEAD"
        is_http_10 = request is not None and request.is_http_10
        left = 0 if is_head or status in _WITHOUT_CONTENT else length
        self._left = left  # content bytes still to come; None: unknown
        self._chunked = left is None and not is_http_10
        self.closes = not may_stay or (left is None and is_http_10) or status == _UPGRADE_REQUIRED
        if self.closes:
            connection = _CLOSE_UPGRADE if status == _UPGRADE_REQUIRED else _CLOSE
        else:
            connection = _STAY_10 if is_http_10 else b""
        framing = b""
        if length is not None and status != _WITHOUT_LENGTH:
            framing = b"Content-Length: %d\r\n" % length
        elif self._chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self._head: bytes | None = b"".join((line, *lines, framing, connection, b"\r\n"))  # until it is sent

    def framed(self, pieces: Sequence[bytes]) -> list[bytes]:
        """Return what is to be written for these pieces of content, the head before the first."""
        out: list[bytes] = []
        if self._head is not None:
            out.append(self._head)
            self._head = None
        size = sum(map(len, pieces))
        if size == 0 or self._left == 0:
            return out
        if self._chunked:
            out.append(b"%x\r\n" % size)
            out.extend(pieces)
            out.append(b"\r\n")
            return out
        out.extend(pieces)
        if self._left is not None:
            self._left -= size
        return out

    def end(self, out: list[bytes]) -> bool:
        """Append the end; False where fewer bytes came than were said, so that there is no clean end."""
        if self._chunked:
            out.append(b"0\r\n\r\n")
        return not self._left
