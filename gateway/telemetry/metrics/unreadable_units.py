"""Units that fal named and that are none, as the log has them: an event now and then, however many there are.

The decision: such units come with every request of an endpoint or with none, so one event in ten seconds of a worker
says as much as thousands; it names one request, and counts the others.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.telemetry.record import ExchangeRecord

EVERY_SECONDS: Final = 10.0


class UnreadableUnits:
    """One process's."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock: Final = clock
        self._count = 0
        self._due_at = 0.0

    def note(self, record: ExchangeRecord) -> None:
        """Count a request, and log it where it is time to."""
        self._count += 1
        now = self._clock()
        if now < self._due_at:
            return
        structlog.get_logger().warning(
            "units_unreadable",
            request_id=record.request_id,
            fal_request_id=(record.fal_request_id or "")[:128] or None,
            endpoint=record.endpoint[:256],
            count=self._count,
        )
        self._count = 0
        self._due_at = now + EVERY_SECONDS
