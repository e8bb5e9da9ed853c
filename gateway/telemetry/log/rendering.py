"""One log entry as one line of bytes: the constant shape of `exchange`, and every other event.

The decision: rendering happens in the log's writer thread and so must never raise, whatever a value is: what JSON
cannot carry (a lone surrogate, an integer beyond 64 bits, an odd object) is replaced, what is not finite is null,
and what a caller or an origin chose is cut to a bound.
"""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from gateway.http.traceparent import read_traceparent
from gateway.telemetry.record import ExchangeRecord

if TYPE_CHECKING:
    from collections.abc import Callable

Event = dict[str, Any]

LEVEL_OF: Final = MappingProxyType(
    {
        "ok": "info",
        "refused": "info",
        "client_gone": "info",
        "origin_failed": "warning",
        "cut": "warning",
        "gateway_failed": "error",
    }
)
"""Log level of an exchange by its outcome."""

_OPERATORS_ERRORS: Final = frozenset({"upstream_unauthorized"})
"""Error types that only the operator can mend: level `error`, whatever the outcome."""

IDENTIFIER_CHARS: Final = 128
NAME_CHARS: Final = 256
METHOD_CHARS: Final = 32
TEXT_CHARS: Final = 8_192
"""Bounds of what others chose; the last one is for messages and tracebacks."""

_MILLISECONDS: Final = 1_000
_MICROSECONDS: Final = 1_000_000
_ENDLESS_SECONDS: Final = 1e9
_FRACTIONS: Final = tuple(f".{milliseconds:03d}Z" for milliseconds in range(_MILLISECONDS))


def exchange_event(record: ExchangeRecord) -> Event:
    """Return the fields of the `exchange` event in the order of docs/logs.md; unknown ones are None.

    Behind them `trace_id` and `span_id`, where the request is part of a trace: the gateway's own span, or the caller's
    where nothing is traced here.
    """
    event: Event = {
        "timestamp": record.timestamp,
        "level": "error" if record.error_type in _OPERATORS_ERRORS else LEVEL_OF[record.outcome],
        "event": "exchange",
        "request_id": record.request_id,
        "fal_request_id": _cut(record.fal_request_id, IDENTIFIER_CHARS),
        "key": record.key,
        "team": record.team,
        "method": record.method[:METHOD_CHARS],
        "host": _cut(record.host, NAME_CHARS),
        "endpoint": record.endpoint[:NAME_CHARS],
        "class": record.billing,
        "status": record.status,
        "outcome": record.outcome,
        "error_type": record.error_type,
        "duration_ms": _milliseconds(record.duration_seconds),
        "first_byte_ms": _milliseconds(record.first_byte_seconds),
        "overhead_ms": _milliseconds(record.overhead_seconds),
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
        "units": record.units,
        "cost_usd": record.cost_usd,
        "cost_source": record.cost_source,
    }
    if record.trace is not None:
        event |= {"trace_id": record.trace.trace_id, "span_id": record.trace.span_id}
    elif record.traceparent is not None:
        parent = read_traceparent(record.traceparent)
        if parent is not None:
            event |= {"trace_id": parent.trace_id, "span_id": parent.span_id}
    return event


def _cut(text: str | None, chars: int) -> str | None:
    return None if text is None else text[:chars]


def _milliseconds(seconds: float | None) -> float | None:
    if seconds is None or not 0 <= seconds < _ENDLESS_SECONDS:  # infinities, and what is no number, become null
        return None
    return int(seconds * _MICROSECONDS + 0.5) / _MILLISECONDS


def json_renderer() -> Callable[[ExchangeRecord | Event], bytes]:
    """Return a function that renders an entry as a JSON line."""
    clock = IsoClock().write
    encode = structlog.processors.JSONRenderer(serializer=orjson.dumps, default=str)

    def render(entry: ExchangeRecord | Event) -> bytes:
        event = _ordered(entry, clock)
        try:
            line = encode(None, "", event)
        except (TypeError, ValueError):
            line = encode(None, "", {name: _plain(value) for name, value in event.items()})
        return (line if isinstance(line, bytes) else line.encode()) + b"\n"

    return render


def console_renderer(*, colours: bool) -> Callable[[ExchangeRecord | Event], bytes]:
    """Return a function that renders an entry for a person at a terminal, without the fields that say nothing."""
    clock = IsoClock().write
    encode = structlog.dev.ConsoleRenderer(colors=colours, sort_keys=False)

    def render(entry: ExchangeRecord | Event) -> bytes:
        event = {name: _visible(name, value) for name, value in _ordered(entry, clock).items() if value is not None}
        return encode(None, "", event).encode("utf-8", "replace") + b"\n"

    return render


def _ordered(entry: ExchangeRecord | Event, clock: Callable[[float], str]) -> Event:
    """Return an event with timestamp, level and name in front, and its time as ISO 8601 in UTC."""
    if isinstance(entry, ExchangeRecord):
        event = exchange_event(entry)
    else:
        front = {"timestamp": entry["timestamp"], "level": entry["level"], "event": entry["event"]}
        event = {name: _bounded(value) for name, value in (front | entry).items()}
    event["timestamp"] = clock(event["timestamp"])
    return event


class IsoClock:
    """Writes times as ISO 8601 in UTC; it remembers the last second, which most lines share: 0.3 us in place of 1.7."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def write(self, epoch_seconds: float) -> str:
        """Return seconds since the epoch as `2027-01-01T00:00:00.000Z`."""
        milliseconds = int(epoch_seconds * _MILLISECONDS + 0.5)
        second = milliseconds // _MILLISECONDS
        if second != self._second:
            self._second = second
            self._text = _iso_second(second)
        return self._text + _FRACTIONS[milliseconds - second * _MILLISECONDS]


def _iso_second(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat()[: -len("+00:00")]


def _bounded(value: object) -> object:
    """Return a value, a long text without its middle: a traceback says most at its two ends."""
    if not isinstance(value, str) or len(value) <= TEXT_CHARS:
        return value
    return f"{value[: TEXT_CHARS // 2]} ... {value[-TEXT_CHARS // 2 :]}"


def _plain(value: object) -> object:
    """Return what JSON carries without question, for a value among which there is one that it does not."""
    if value is None or isinstance(value, bool | float):
        return value
    return str(value)[:TEXT_CHARS].encode("utf-8", "replace").decode()


def _visible(name: str, value: object) -> object:
    """Return a value as a person reads it: `1` and not `Decimal('1')`, a text with its control characters escaped."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_visible(name, item) for item in value]
    if isinstance(value, dict):
        return {key: _visible(name, item) for key, item in value.items()}
    text = value if isinstance(value, str) else str(value)
    # A terminal obeys control characters, and some of these strings were chosen by strangers.
    return text if name == "exception" or text.isprintable() else repr(text)
