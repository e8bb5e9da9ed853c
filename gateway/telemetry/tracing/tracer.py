"""Puts each request into a trace at its head, and hands it on to be exported at its end.

The decision: on the event loop a trace is three identifiers and a flag. The field for the origin is written among the
caller's own, so that what forwards fields needs to know nothing of traces.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from gateway.http.traceparent import RANDOM, SAMPLED, Trace, read_traceparent, retraced, traceparent_of
from gateway.telemetry.tracing.exporter import Exporter
from gateway.telemetry.tracing.sampler import Sampler
from gateway.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.http.message import RequestHead
    from gateway.telemetry.record import ExchangeRecord
    from gateway.telemetry.tracing.settings import TraceSettings

_SPAN_DIGITS: Final = 16
_CLOSE_SECONDS: Final = 2.0


class Tracer:
    """The traces of one worker."""

    def __init__(self, exporter: Exporter, sampler: Sampler, new_id: Callable[[], str]) -> None:
        """Take what exports and what samples; `new_id` gives 32 random hexadecimal digits."""
        self._exporter: Final = exporter
        self._sampler: Final = sampler
        self._new_id: Final = new_id

    def begin(self, record: ExchangeRecord, head: RequestHead | None) -> None:
        """Give a request its place in its caller's trace, or else begin one under the request's own id.

        The head gets the field that the origin is to see.
        """
        value = traceparent_of(head.fields) if head is not None else None
        parent = read_traceparent(value) if value is not None else None
        digits = self._new_id()
        if parent is not None:
            trace_id, parent_id, is_random = parent.trace_id, parent.span_id, parent.flags & RANDOM
            is_sampled = self._sampler.samples(trace_id, parent_sampled=parent.flags & SAMPLED != 0)
        else:
            trace_id, parent_id, is_random = record.request_id, "", RANDOM
            is_sampled = self._sampler.samples(trace_id, parent_sampled=None)
        record.trace = trace = Trace(
            trace_id,
            parent_id,
            span_id=digits[:_SPAN_DIGITS],
            client_id=digits[_SPAN_DIGITS:],
            flags=is_random | (SAMPLED if is_sampled else 0),
        )
        if head is not None:
            head.fields = retraced(head.fields, trace)

    def finish(self, record: ExchangeRecord) -> None:
        """Take a closed record; where its trace is recorded, its spans are exported."""
        trace = record.trace
        if trace is not None and trace.is_sampled:
            self._exporter.put(record)

    def count_to(self, count_dropped: Callable[[int], None]) -> None:
        """Count lost spans there from now on."""
        self._exporter.count_dropped = count_dropped

    def close(self) -> None:
        """Send what waits and end, within 2 s; harmless when done twice."""
        self._exporter.close(_CLOSE_SECONDS)


def finishing(emit: Callable[[ExchangeRecord], None], tracer: Tracer | None) -> Callable[[ExchangeRecord], None]:
    """Return what takes closed records to `emit`, and then to the tracer where there is one."""
    if tracer is None:
        return emit
    finish = tracer.finish

    def both(record: ExchangeRecord) -> None:
        emit(record)
        finish(record)

    return both


def open_tracer(
    settings: TraceSettings | None, new_id: Callable[[], str], replica: str, *, ca_file: str | None
) -> Tracer | None:
    """Return a tracer with its thread, None where tracing is off; `replica` names this gateway among all."""
    if settings is None:
        return None
    ours = {
        "service.version": VERSION,
        "service.instance.id": f"{replica}-{os.getpid()}",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "fal-gateway",
        "telemetry.sdk.version": VERSION,
    }
    attributes = tuple((ours | dict(settings.resource)).items())
    exporter = Exporter(settings, attributes=attributes, ca_file=ca_file)
    return Tracer(exporter, Sampler(settings.sampler, settings.ratio), new_id)
