"""`python -m benchmarks.metrics_alone`: what counting one request takes by itself, in microseconds.

Decided here: the best of several rounds, with the classes that a worker counts with, over a region like its own. What
a cold cache adds on the way of a real request is not in it.
"""

from __future__ import annotations

import sys
import timeit
from typing import Final

from gateway.telemetry.metrics.counters import Region
from gateway.telemetry.metrics.endpoint_labels import EndpointLabels
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.record import ExchangeRecord

_CALLS: Final = 20_000
_ROUNDS: Final = 7


def microseconds() -> float:
    """Return the time of one exchange's record, opened and closed."""
    meter = Meter(Region(), EndpointLabels(), emit=lambda _record: None)

    def count() -> None:
        record = ExchangeRecord("0123456789abcdef", "POST")
        record.team = record.key = "bench"
        record.billing, record.endpoint, record.status = "paid", "bench/post", 200
        record.first_byte_seconds, record.overhead_seconds, record.duration_seconds = 0.004, 0.0001, 0.0042
        meter.open(record)
        meter.close(record)

    return 1e6 * min(timeit.repeat(count, number=_CALLS, repeat=_ROUNDS)) / _CALLS


if __name__ == "__main__":
    sys.stdout.write(f"{microseconds():.3f}\n")
