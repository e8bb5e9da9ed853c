"""What a journal could not write: how many purchases wait in memory, how many are lost, and who filled the spool.

The decision: nothing of this runs while the disk takes every line and the spool is less than half full. A purchase is
counted as lost when its last line is dropped, not its first one: each line holds the whole row, so a purchase whose
hold was dropped is in the ledger all the same if its end is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_ID_AT: Final = len(b'00000000 ["')
_HELD: Final = b'","held","'
_RELEASED: Final = b'","released","'
_BOUND: Final = b'","submit","'  # a submit's line that has fal's request id: `null` is without quotation marks
_KEY: Final = 7  # of a line cut at its quotation marks: those of id, status, team and key come first


class Unwritten:
    """Purchases of which something is not in the file. `lost`: how many were dropped for good, since the start."""

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: set[bytes] = set()
        self._without_hold = 0  # holds that were dropped, and whose purchases go on

    def __len__(self) -> int:
        """Return how many purchases would be lost if the process died now."""
        return len(self._waiting) + self._without_hold

    def wait(self, lines: Iterable[bytes]) -> None:
        """Take lines that are in memory only; a purchase that was released costs nothing, and is none."""
        for line in lines:
            purchase = line[_ID_AT : line.find(b'"', _ID_AT)]
            if line.find(_RELEASED) >= 0:
                self._waiting.discard(purchase)
            elif line:
                self._waiting.add(purchase)

    def wait_only(self, rest: bytes) -> None:
        """Take what is left over as all that waits."""
        self._waiting.clear()
        self.wait(rest.split(b"\n"))

    def clear(self) -> None:
        """Take everything that waited as written."""
        self._waiting.clear()
        self._without_hold = 0

    def drop(self, line: bytes) -> None:
        """Count a line that is not kept."""
        if line.find(_HELD) >= 0:
            self._without_hold += line.find(_BOUND) < 0
            return
        self._without_hold = max(0, self._without_hold - 1)
        self.lost += line.find(_RELEASED) < 0


class KeyShares:
    """How many bytes each key has written while the spool was more than half full."""

    def __init__(self, share_bytes: int) -> None:
        """Take how many one key may write."""
        self._share_bytes = share_bytes
        self._written: dict[bytes, int] = {}

    def add(self, line: bytes) -> None:
        """Count a line for its key."""
        key = _key_of(line)
        self._written[key] = self._written.get(key, 0) + len(line)

    def is_used_by(self, line: bytes) -> bool:
        """Say whether the key of a line has used its share."""
        return self._written.get(_key_of(line), 0) > self._share_bytes

    def is_used(self, key: str) -> bool:
        """Say whether a key has used its share."""
        return self._written.get(key.encode(), 0) > self._share_bytes

    def clear(self) -> None:
        """Begin again: the spool is less than half full."""
        self._written.clear()


def _key_of(line: bytes) -> bytes:
    parts = line.split(b'"', _KEY + 1)
    return parts[_KEY] if len(parts) > _KEY else b""
