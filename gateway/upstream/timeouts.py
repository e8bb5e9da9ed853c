"""Timeouts by phase, for all transfers by one look in a while: no timer of its own for a request.

There is no limit in total: a model may think for minutes and an event stream may last for days. What is bounded is the
time without progress: connect (libcurl's own), first byte from the moment that the request was sent whole, and idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.upstream.failures import failure

if TYPE_CHECKING:
    from gateway.upstream.interface import OriginFailure
    from gateway.upstream.transfer import Transfer

LOOK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class OriginTimeouts:
    """Bounds in seconds."""

    connect: float
    first_byte: float
    idle: float

    def overdue(self, transfer: Transfer, now: float) -> OriginFailure | None:
        """Return the failure of a transfer that made no progress for too long at `now` (monotonic seconds)."""
        if not transfer.attempted or not self._is_waiting_for_origin(transfer):
            return None
        bound = self.first_byte if transfer.sent_whole and transfer.head is None else self.idle
        if now - transfer.touched <= bound:
            return None
        return failure("origin_timeout", sent=True)

    @staticmethod
    def _is_waiting_for_origin(transfer: Transfer) -> bool:
        """Tell the origin's silence from the caller's: who reads or feeds slowly is watched at the other end."""
        if transfer.held or transfer.full or transfer.pieces:
            return False
        return transfer.head is not None or transfer.sent_whole or not transfer.send_paused
