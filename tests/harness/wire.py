"""HTTP/1.1 as bytes, read strictly: heads, fields and bodies, for the raw client and the scripted origin alike.

The decision it carries: nothing here is lenient. A body that ends before its own framing says so is `Truncated`,
whatever the peer's manners; that difference is what the gateway promises to keep visible.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

Fields = tuple[tuple[bytes, bytes], ...]
RECEIVE_BYTES: Final = 65536
HEAD_LIMIT_BYTES: Final = 1 << 20
FIELD_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*")
CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\r\n]*)?\r\n")


class Malformed(Exception):  # noqa: N818 - said of the peer's bytes, as `Truncated` is
    """The peer sent what HTTP/1.1 does not allow."""


class Truncated(Exception):  # noqa: N818 - said of the peer's bytes, as `Malformed` is
    """The peer ended the connection before what it had begun was whole. `how`: `fin` or `reset`."""

    def __init__(self, received: bytes, how: str) -> None:
        super().__init__(f"cut by {how} after {len(received)} bytes of this part: {received[:200]!r}")
        self.received = received
        self.how = how


class WireReader:
    """A socket's incoming bytes, taken in the pieces that HTTP asks for."""

    __slots__ = ("_buffer", "_socket")

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()

    def fill(self) -> bool:
        """Take what has come; False at the peer's orderly end. `Truncated` where it resets the connection."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except (ConnectionResetError, BrokenPipeError):
            raise Truncated(bytes(self._buffer), "reset") from None
        self._buffer += data
        return bool(data)

    def through(self, mark: bytes) -> bytes:
        """Return everything up to and with `mark`."""
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > HEAD_LIMIT_BYTES:
                raise Malformed(f"no {mark!r} in {HEAD_LIMIT_BYTES} bytes")
            if not self.fill():
                raise Truncated(bytes(self._buffer), "fin")
        return self._take(at + len(mark))

    def pieces(self, count: int) -> Iterator[bytes]:
        """Yield exactly `count` bytes in the pieces in which they come."""
        while count > 0:
            if not self._buffer and not self.fill():
                raise Truncated(b"", "fin")
            piece = self._take(min(count, len(self._buffer)))
            count -= len(piece)
            yield piece

    def rest(self) -> Iterator[bytes]:
        """Yield all that comes until the peer's orderly end."""
        while self._buffer or self.fill():
            yield self._take(len(self._buffer))

    def ended(self) -> bool:
        """Wait for the next byte or the end: True at the peer's orderly end with nothing unread."""
        return not self._buffer and not self.fill()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


@dataclass(frozen=True, slots=True)
class Head:
    """A start line and its fields: names lower-case, in the order in which they came, duplicates kept apart."""

    start: bytes
    fields: Fields

    def values(self, name: bytes) -> list[bytes]:
        """Return every value of a field."""
        return [value for field, value in self.fields if field == name]

    def value(self, name: bytes) -> bytes | None:
        """Return the one value of a field, None without it; `Malformed` where it is repeated."""
        found = self.values(name)
        if len(found) > 1:
            raise Malformed(f"{name!r} came {len(found)} times: {found!r}")
        return found[0] if found else None

    @property
    def status(self) -> int:
        """Status code of an answer's head (RFC 9112, section 4)."""
        matched = re.fullmatch(rb"HTTP/1\.1 ([1-5][0-9]{2}) [^\r\n\0]*", self.start)
        if not matched:
            raise Malformed(f"not a status line: {self.start!r}")
        return int(matched[1])

    @property
    def framing(self) -> str:
        """How the end of the content is marked: `chunked`, `length`, or `none`; never two ways at once."""
        length, coding = self.value(b"content-length"), self.value(b"transfer-encoding")
        if length is not None and (coding is not None or not re.fullmatch(rb"[0-9]{1,19}", length)):
            raise Malformed(f"content-length {length!r} with transfer-encoding {coding!r}")
        if coding not in {None, b"chunked"}:
            raise Malformed(f"transfer-encoding {coding!r}")
        return "chunked" if coding else "length" if length is not None else "none"


def read_head(reader: WireReader) -> Head:
    """Read one head, strictly."""
    start, *lines = reader.through(b"\r\n\r\n")[:-4].split(b"\r\n")
    return Head(start, tuple(parse_field(line) for line in lines))


def parse_field(line: bytes) -> tuple[bytes, bytes]:
    """Return (name in lower case, value) of one field line; `Malformed` where it is none."""
    matched = FIELD_LINE.fullmatch(line)
    if not matched:
        raise Malformed(f"not a field line: {line!r}")
    return matched[1].lower(), matched[2]


def framed_pieces(reader: WireReader, head: Head) -> Iterator[bytes]:
    """Yield a body that says where it ends, piece by piece as it comes; nothing where the head announces none."""
    if head.framing == "chunked":
        yield from chunked_pieces(reader)
    elif head.framing == "length":
        yield from reader.pieces(int(head.value(b"content-length") or 0))


def chunked_pieces(reader: WireReader) -> Iterator[bytes]:
    """Yield the data of a chunked body (RFC 9112, section 7.1), and read its trailer section away."""
    while size := read_chunk_size(reader):
        yield from reader.pieces(size)
        if b"".join(reader.pieces(2)) != b"\r\n":
            raise Malformed("a chunk is longer than it said")
    while (line := reader.through(b"\r\n")) != b"\r\n":
        parse_field(line[:-2])


def read_chunk_size(reader: WireReader) -> int:
    """Read one chunk's first line."""
    line = reader.through(b"\r\n")
    matched = CHUNK_SIZE.fullmatch(line)
    if not matched:
        raise Malformed(f"not a chunk size: {line!r}")
    return int(matched[1], 16)
