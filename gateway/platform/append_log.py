"""An append-only list of byte strings in shared memory: one process appends at a time, any other reads, none waits.

The decision: nothing but the number of bytes in use is published, and it is stored last. A writer that is killed in
the middle of an append leaves bytes that nobody counts and that the next append covers. Each entry carries its CRC,
so that a reader on a machine that reorders stores stops before an entry that has not arrived whole, and finds it the
next time.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

HEAD: Final = struct.Struct("=HI")
"""Length of the entry in bytes, CRC-32 of the entry."""

LONGEST_ENTRY_BYTES: Final = 0xFFFF


class AppendLog:
    """The list itself, over memory that somebody else owns."""

    __slots__ = ("_area", "_used")

    def __init__(self, used: memoryview, area: memoryview) -> None:
        """Lay the list over `area` (bytes), and its bytes in use into `used` (one int64)."""
        self._used = used
        self._area = area

    def append(self, entry: bytes, *, leave_free_bytes: int = 0) -> bool:
        """Append a non-empty entry; False where it does not fit with `leave_free_bytes` to spare."""
        start = self._used[0] + HEAD.size
        end = start + len(entry)
        if not entry or len(entry) > LONGEST_ENTRY_BYTES or end + leave_free_bytes > len(self._area):
            return False
        HEAD.pack_into(self._area, start - HEAD.size, len(entry), zlib.crc32(entry))
        self._area[start:end] = entry
        self._used[0] = end
        return True

    def read(self, offset: int) -> tuple[list[bytes], int]:
        """Return the entries from `offset` (bytes) on that are there whole, and the offset behind them."""
        found: list[bytes] = []
        while offset < self._used[0]:
            length, crc = HEAD.unpack_from(self._area, offset)
            start = offset + HEAD.size
            entry = bytes(self._area[start : start + length])
            if not entry or zlib.crc32(entry) != crc:
                break
            found.append(entry)
            offset = start + length
        return found, offset

    def release(self) -> None:
        """Let go of the memory, so that its owner can close it."""
        self._area.release()
        self._used.release()
