"""The active policy, published by one process at a time in memory that all workers share.

The decision: two places, written in turn, and the number of the newest generation stored last. So a reader finds a
whole edition at any time, also while the next is being written, or after its writer was killed within. A checksum over
number, length and content tells what was overwritten under a slow reader's eyes; it looks again. Nobody waits, and
a worker that is forked late reads what the others have read.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Final

LARGEST_CONTENT_BYTES: Final = 16 * 2**20
"""Bound of one edition; the kernel gives the memory page by page as it is used."""

_NUMBER_BYTES: Final = 8
_HEAD: Final = struct.Struct("<QQ")  # generation, length in bytes
_CHECKSUM: Final = struct.Struct("<I")
_CONTENT_AT: Final = _HEAD.size + _CHECKSUM.size
_ATTEMPTS: Final = 1000


class Published:
    """The memory; made before the first fork, written by the process that made it. Generations count from 1."""

    def __init__(self, *, largest_bytes: int = LARGEST_CONTENT_BYTES) -> None:
        """Make room for contents of up to so many bytes."""
        self._largest = largest_bytes
        self._place_bytes = (_CONTENT_AT + largest_bytes + 7) // 8 * 8
        self._memory = mmap.mmap(-1, _NUMBER_BYTES + 2 * self._place_bytes)
        self._whole = memoryview(self._memory)
        self._newest = self._whole[:_NUMBER_BYTES].cast("q")

    @property
    def generation(self) -> int:
        """Number of the newest generation; 0 before the first."""
        return int(self._newest[0])

    def publish(self, content: bytes) -> int:
        """Make a content the newest and return its generation; ValueError where there is no room for it."""
        if len(content) > self._largest:
            raise ValueError(f"{len(content)} bytes are more than {self._largest}")
        generation = self.generation + 1
        head = _HEAD.pack(generation, len(content))
        record = b"".join((head, _CHECKSUM.pack(zlib.crc32(content, zlib.crc32(head))), content))
        start = self._start(generation)
        self._whole[start : start + len(record)] = record
        self._newest[0] = generation
        return generation

    def read(self) -> tuple[int, bytes]:
        """Return the newest generation and its content, once there is one."""
        for _ in range(_ATTEMPTS):
            generation = self.generation
            content = self._content(generation)
            if content is not None:
                return generation, content
        raise RuntimeError("nothing was published, or the memory is broken")

    def _start(self, generation: int) -> int:
        return _NUMBER_BYTES + generation % 2 * self._place_bytes

    def _content(self, generation: int) -> bytes | None:
        """Return the content of a generation; None where the place holds another, or is being written."""
        start = self._start(generation)
        head = bytes(self._whole[start : start + _HEAD.size])
        found, length = _HEAD.unpack(head)
        if found != generation or length > self._largest:
            return None
        content = bytes(self._whole[start + _CONTENT_AT : start + _CONTENT_AT + length])
        (checksum,) = _CHECKSUM.unpack_from(self._whole, start + _HEAD.size)
        return content if zlib.crc32(content, zlib.crc32(head)) == checksum else None

    def close(self) -> None:
        """Give this process's mapping back; nothing here may be used afterwards."""
        self._newest.release()
        self._whole.release()
        self._memory.close()
