"""An HTTP/1.1 answer as it comes in, as much as a driver must understand of it: status, framing, where it ends."""

from __future__ import annotations

from typing import Final

_LAST_CHUNK: Final = b"0\r\n\r\n"
_HEAD_END: Final = b"\r\n\r\n"


class AnswerReader:
    """Takes pieces of one answer. `content_bytes` counts what followed the head, chunk framing included."""

    __slots__ = ("_head", "_length", "_tail", "content_bytes", "is_done", "status")

    def __init__(self) -> None:
        self.status = 0
        self.content_bytes = 0
        self.is_done = False
        self._head = bytearray()
        self._length: int | None = None
        self._tail = b""

    def take(self, piece: bytes | bytearray | memoryview) -> None:
        """Take what was received next."""
        if self.status:
            self._take_content(piece)
            return
        self._head += piece
        end = self._head.find(_HEAD_END)
        if end >= 0:
            content = bytes(self._head[end + len(_HEAD_END) :])
            self._read_head(bytes(self._head[:end]).lower())
            self._take_content(content)

    def _read_head(self, head: bytes) -> None:
        status_line, *lines = head.split(b"\r\n")
        self.status = int(status_line.split()[1])
        fields = dict(line.split(b":", 1) for line in lines)
        length = fields.get(b"content-length")
        self._length = int(length) if length else None
        self.is_done = self._length == 0

    def _take_content(self, piece: bytes | bytearray | memoryview) -> None:
        self.content_bytes += len(piece)
        if self._length is not None:
            self.is_done = self.content_bytes >= self._length
            return
        # The origin's content is made so that nothing but the last chunk ends like the last chunk.
        self._tail = (self._tail + bytes(piece[-len(_LAST_CHUNK) :]))[-len(_LAST_CHUNK) :]
        self.is_done = self._tail == _LAST_CHUNK
