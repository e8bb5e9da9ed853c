"""An answer's head and framing in HTTP/1.1 bytes (RFC 9112 section 6), such that a cut always shows.

Content goes out under Content-Length or in chunks; only an HTTP/1.0 caller and an unknown length leave the close of the
connection as its end.
"""

from __future__ import annotations

from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_STATUS_LINES: Final = MappingProxyType(
    {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus}
)
_WITHOUT_CONTENT: Final = (204, 304)
_WITHOUT_LENGTH: Final = 204


class Framing:
    """One answer's framing."""

    __slots__ = ("_chunked", "_left", "ends_with_connection")

    def __init__(self, status: int, length: int | None, *, is_head: bool, is_http_10: bool) -> None:
        """Take the length in bytes, None where it is not known, and two facts about the request."""
        bodiless = is_head or status in _WITHOUT_CONTENT
        self._left = 0 if bodiless else length  # content bytes still to come; None: unknown
        self._chunked = self._left is None and not is_http_10
        self.ends_with_connection = self._left is None and is_http_10

    def head(self, status: int, lines: Sequence[bytes], *, length: int | None, connection: bytes) -> bytes:
        """Return the head: status line, field lines (with their ends), framing, connection line."""
        framing = b""
        if length is not None and status != _WITHOUT_LENGTH:
            framing = b"Content-Length: %d\r\n" % length
        elif self._chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        return b"".join((line, *lines, framing, connection, b"\r\n"))

    def add(self, out: list[bytes], pieces: Sequence[bytes]) -> None:
        """Append content to what will be written."""
        size = sum(map(len, pieces))
        if size == 0 or self._left == 0:
            return
        if self._chunked:
            out.append(b"%x\r\n" % size)
            out.extend(pieces)
            out.append(b"\r\n")
            return
        out.extend(pieces)
        if self._left is not None:
            self._left -= size

    def end(self, out: list[bytes]) -> bool:
        """Append the end; False where fewer bytes came than were said, so that there is no clean end."""
        if self._chunked:
            out.append(b"0\r\n\r\n")
        return not self._left
