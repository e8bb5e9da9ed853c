"""Which refusals are logged one by one: strangers' are sampled, since a flood of them needs no key.

The decision: of the requests that came without a valid key the first hundred a second are logged and traced; the rest
is one event a second, with how many there were of each kind. The metrics count all. What the holder of a key
asks for is always logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from gateway.telemetry.record import ANONYMOUS, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.telemetry.record import ExchangeRecord

LOGGED_A_SECOND: Final = 100
_NOT_REFUSED: Final = "none"


class RefusalSampler:
    """Passes closed records on to `emit`, less what is too much of strangers; one for each worker."""

    def __init__(self, emit: Callable[[ExchangeRecord], None]) -> None:
        self._emit = emit
        self._second = 0
        self._logged = 0  # in that second
        self._unlogged: dict[str, int] = {}  # since the last summary, by error type

    def emit(self, record: ExchangeRecord) -> None:
        """Take a closed record."""
        if record.key == UNKNOWN or (record.key == ANONYMOUS and record.outcome == "refused"):
            second = int(record.timestamp)
            if second != self._second:
                self._second, self._logged = second, 0
            if self._logged >= LOGGED_A_SECOND:
                kind = record.error_type or _NOT_REFUSED
                self._unlogged[kind] = self._unlogged.get(kind, 0) + 1
                return
            self._logged += 1
        self._emit(record)

    def summarize(self) -> None:
        """Log how many were not logged since the last time; to be called once a second."""
        if self._unlogged:
            unlogged, self._unlogged = self._unlogged, {}
            structlog.get_logger().info("refusals_sampled", count=sum(unlogged.values()), error_types=unlogged)
