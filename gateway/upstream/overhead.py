"""What answers take on the wire beside their content, bounded: chunk extensions, and whatever else is not passed on.

libcurl bounds heads by itself (300 KiB), and transfer.py trailers. libcurl skips chunk extensions without a bound and
without notice, so they show only in what the kernel has received on the connection. All answers under way are looked at
once a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.upstream.transfer import Transfer

_LOOK_SECONDS: Final = 1.0
_MOST_BYTES: Final = 1_048_576  # more than one connection's buffers hold that has been received and not been read
_MOST_FOR_A_BYTE: Final = 64  # of content: one byte in a chunk and a TLS record of its own takes half of that


class Overhead:
    """Compares what connections received with the content that came of it."""

    def __init__(self, received_bytes: Callable[[Transfer], int]) -> None:
        """Take what tells how much was received in all on a transfer's connection; 0 where that is not known."""
        self._received_bytes = received_bytes
        self._first: dict[Transfer, tuple[int, int]] = {}  # received and content, when each was first looked at
        self._next_look = 0.0

    def excessive(self, transfers: Iterable[Transfer], now: float) -> list[Transfer]:
        """Return the transfers whose answers take too much; `now` in monotonic seconds."""
        if now < self._next_look:
            return []
        self._next_look = now + _LOOK_SECONDS
        former, self._first = self._first, {}
        found = []
        for transfer in transfers:
            if transfer.head is None:
                continue
            received, content = self._received_bytes(transfer), transfer.received
            first = self._first[transfer] = former.get(transfer, (received, content))
            if received - first[0] > _MOST_BYTES + _MOST_FOR_A_BYTE * (content - first[1]):
                found.append(transfer)
        return found
