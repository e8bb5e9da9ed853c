"""A closed exchange as spans, in the bytes of OTLP 1 (opentelemetry/proto/trace/v1/trace.proto).

The decision: two spans, the gateway's answering of its caller (SERVER) and its own call to the origin (CLIENT, where
one was made), both out of the one record that log and metrics are made of too. Names follow OpenTelemetry's semantic
conventions for HTTP where they have one, else they begin with `fal.` or `gateway.`. As in the log: identifiers, times
and sizes, and never a body, a query, a credential, or a field that a caller chose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.telemetry.log.rendering import IDENTIFIER_CHARS, METHOD_CHARS, NAME_CHARS
from gateway.telemetry.record import CLIENT_GONE_STATUS, ExchangeRecord
from gateway.telemetry.tracing.protobuf import chunk, double, fixed32, fixed64, unsigned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.http.traceparent import Trace

ROUTE: Final = "/api/fal/proxy"
SCOPE: Final = "fal_gateway"

_METHODS: Final = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_OTHER_METHOD: Final = "_OTHER"
_SERVER: Final = 2
_CLIENT: Final = 3
_ERROR: Final = 2
_FAULTY_OUTCOMES: Final = ("origin_failed", "cut", "gateway_failed")
_SERVER_FAULT: Final = 500
_CLIENT_FAULT: Final = 400
_HAS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_NANOSECONDS: Final = 1_000_000_000
_MILLISECONDS: Final = 1_000
_HTTPS_PORT: Final = 443

# Numbers of fields in trace.proto and common.proto.
_TRACE_ID: Final = 1
_SPAN_ID: Final = 2
_PARENT_SPAN_ID: Final = 4
_NAME: Final = 5
_KIND: Final = 6
_START: Final = 7
_END: Final = 8
_ATTRIBUTES: Final = 9
_STATUS: Final = 15
_STATUS_CODE: Final = 3
_FLAGS: Final = 16
_KEY: Final = 1
_VALUE: Final = 2
_STRING: Final = 1
_INT: Final = 3
_DOUBLE: Final = 4


def _text(name: str, value: str | None, most: int = NAME_CHARS) -> bytes:
    """Return an attribute, nothing where there is no value; a lone surrogate becomes `?`."""
    if not value:
        return b""
    return _attribute(name, chunk(_STRING, value[:most].encode("utf-8", "replace")))


def _whole(name: str, value: int) -> bytes:
    return _attribute(name, unsigned(_INT, value))


def _fraction(name: str, value: float | None) -> bytes:
    return b"" if value is None else _attribute(name, double(_DOUBLE, value))


def _milliseconds(name: str, seconds: float | None) -> bytes:
    return _fraction(name, None if seconds is None else seconds * _MILLISECONDS)


def _attribute(name: str, value: bytes) -> bytes:
    return chunk(_ATTRIBUTES, chunk(_KEY, name.encode()) + chunk(_VALUE, value))


def span_count(record: ExchangeRecord) -> int:
    """Return how many spans a recorded exchange makes."""
    return 1 if record.sent_seconds is None else 2


def spans_of(record: ExchangeRecord) -> list[bytes]:
    """Return the spans of a closed record, each a `Span` message; none where its trace is not recorded."""
    trace = record.trace
    if trace is None or not trace.is_sampled:
        return []
    end_ns = int(record.timestamp * _NANOSECONDS)
    start_ns = end_ns - int(record.duration_seconds * _NANOSECONDS)
    spans = [_server_span(record, trace, start_ns=start_ns, end_ns=end_ns)]
    if record.sent_seconds is not None:
        sent_ns = min(start_ns + int(record.sent_seconds * _NANOSECONDS), end_ns)
        spans.append(_client_span(record, trace, start_ns=sent_ns, end_ns=end_ns))
    return spans


def _server_span(record: ExchangeRecord, trace: Trace, *, start_ns: int, end_ns: int) -> bytes:
    method = record.method if record.method in _METHODS else ""
    parent = chunk(_PARENT_SPAN_ID, bytes.fromhex(trace.parent_id)) if trace.parent_id else b""
    was_answered = not (record.outcome == "client_gone" and record.status == CLIENT_GONE_STATUS)
    cost = None if record.cost_usd is None else float(record.cost_usd)
    is_error = record.outcome in _FAULTY_OUTCOMES or (was_answered and record.status >= _SERVER_FAULT)
    return b"".join(
        (
            chunk(_TRACE_ID, bytes.fromhex(trace.trace_id)),
            chunk(_SPAN_ID, bytes.fromhex(trace.span_id)),
            parent,
            chunk(_NAME, f"{method or 'HTTP'} {ROUTE}".encode()),
            unsigned(_KIND, _SERVER),
            fixed64(_START, start_ns),
            fixed64(_END, end_ns),
            fixed32(_FLAGS, trace.flags | _HAS_REMOTE | (_IS_REMOTE if parent else 0)),
            _method(record.method, method),
            _text("url.scheme", "http"),
            _text("url.path", ROUTE),
            _text("http.route", ROUTE),
            _whole("http.response.status_code", record.status) if was_answered else b"",
            _whole("http.request.body.size", record.request_bytes),
            _whole("http.response.body.size", record.response_bytes),
            _text("error.type", record.error_type),
            _text("fal.endpoint", record.endpoint),
            _text("fal.request_id", record.fal_request_id, IDENTIFIER_CHARS),
            _text("gateway.request_id", record.request_id),
            _text("gateway.key", record.key),
            _text("gateway.team", record.team),
            _text("gateway.class", record.billing),
            _text("gateway.outcome", record.outcome),
            _milliseconds("gateway.overhead_ms", record.overhead_seconds),
            _fraction("gateway.cost_usd", cost),
            _text("gateway.cost_source", record.cost_source),
            _status(is_error=is_error),
        )
    )


def _client_span(record: ExchangeRecord, trace: Trace, *, start_ns: int, end_ns: int) -> bytes:
    answered = record.first_byte_seconds is not None and record.outcome in ("ok", "cut", "client_gone")
    status = record.status if answered and record.status != CLIENT_GONE_STATUS else 0
    error = record.error_type or (str(status) if status >= _CLIENT_FAULT else None)
    return b"".join(
        (
            chunk(_TRACE_ID, bytes.fromhex(trace.trace_id)),
            chunk(_SPAN_ID, bytes.fromhex(trace.client_id)),
            chunk(_PARENT_SPAN_ID, bytes.fromhex(trace.span_id)),
            chunk(_NAME, record.method[:METHOD_CHARS].encode()),
            unsigned(_KIND, _CLIENT),
            fixed64(_START, start_ns),
            fixed64(_END, end_ns),
            fixed32(_FLAGS, trace.flags | _HAS_REMOTE),
            _text("http.request.method", record.method, METHOD_CHARS),
            _text("server.address", record.host),
            _whole("server.port", _HTTPS_PORT),
            _whole("http.response.status_code", status) if status else b"",
            _text("error.type", error),
            _text("fal.endpoint", record.endpoint),
            _text("fal.request_id", record.fal_request_id, IDENTIFIER_CHARS),
            _milliseconds("gateway.first_byte_ms", record.first_byte_seconds),
            _status(is_error=error is not None),
        )
    )


def _method(sent: str, known: str) -> bytes:
    """Return the method, or that it is none of the known ones, and which one it is then."""
    if known:
        return _text("http.request.method", known)
    return _text("http.request.method", _OTHER_METHOD) + _text("http.request.method_original", sent, METHOD_CHARS)


def _status(*, is_error: bool) -> bytes:
    return chunk(_STATUS, unsigned(_STATUS_CODE, _ERROR)) if is_error else b""


def resource_of(attributes: Iterable[tuple[str, str]]) -> bytes:
    """Return what spans are sent under: a `Resource` with these attributes, as the first field of `ResourceSpans`.

    An environment may hold what is no UTF-8; that becomes `?`.
    """
    texts = [(name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in attributes]
    pairs = [chunk(_KEY, name) + chunk(_VALUE, chunk(_STRING, value)) for name, value in texts]
    return chunk(1, b"".join([chunk(1, pair) for pair in pairs]))


def export_of(resource: bytes, spans: Iterable[bytes]) -> bytes:
    """Return an ExportTraceServiceRequest of spans that one resource (`resource_of`) made."""
    scope = chunk(1, chunk(1, SCOPE.encode()))
    scope_spans = scope + b"".join([chunk(2, span) for span in spans])
    return chunk(1, resource + chunk(2, scope_spans))
