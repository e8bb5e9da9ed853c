"""A receiver of OTLP over HTTP: what the gateway exports, read with OpenTelemetry's own messages.

The decision it carries: spans count as received only where the script of the moment takes them, so that an export that
is tried again counts once.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.harness.messages import http_response
from tests.harness.ports import LOOPBACK
from tests.harness.scene import ScriptSlot
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    from tests.harness.origin import OriginConnection, Received

TRACES_PATH: Final = b"/v1/traces"
CONTENT_TYPE: Final = b"application/x-protobuf"
KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT")
STATUSES: Final = ("UNSET", "OK", "ERROR")


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it arrived; ids in hexadecimal, times in nanoseconds since the epoch."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    flags: int
    status: str
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector(ScriptSlot):
    """A receiver on a free port of loopback; it takes everything, until another script is played."""

    def __init__(self) -> None:
        super().__init__()
        self.exports: list[ExportTraceServiceRequest] = []
        self.heads: list[Received] = []
        self.take_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.origin.close()

    @property
    def url(self) -> str:
        """The base URL, as OTEL_EXPORTER_OTLP_ENDPOINT takes it."""
        return f"http://{LOOPBACK}:{self.origin.port}"

    def take_all(self) -> None:
        """Answer each export with 200 from here on."""
        self.play(self.answering(http_response(b"", fields=[("Content-Type", "application/x-protobuf")])))

    def answering(self, answer: bytes, *, takes: bool = True) -> Callable[[OriginConnection], None]:
        """Return a script that answers each export with these bytes; its spans count where `takes`."""

        def script(connection: OriginConnection) -> None:
            while (request := connection.read_request()) is not None:
                self.tell(request)
                if takes:
                    self._take(request)
                connection.send(answer)

        return script

    def _take(self, request: Received) -> None:
        assert (request.method, request.target) == ("POST", TRACES_PATH)
        fields = dict(request.head.fields)
        assert fields[b"content-type"] == CONTENT_TYPE
        body = bytes(request.body)
        content = gzip.decompress(body) if fields.get(b"content-encoding") == b"gzip" else body
        self.heads.append(request)
        self.exports.append(ExportTraceServiceRequest.FromString(content))

    def spans(self) -> list[Span]:
        """Return all spans received so far."""
        return [span for export in self.exports for span in spans_in(export)]

    def wait_for_spans(self, count: int, **attributes: Any) -> list[Span]:  # noqa: ANN401 - whatever an attribute holds
        """Wait until so many spans with these attributes (`.` written as `__`) have come; AssertionError for more."""
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}

        def found() -> list[Span]:
            return [span for span in self.spans() if wanted.items() <= span.attributes.items()]

        until(lambda: len(found()) >= count, f"{count} spans with {wanted}")
        spans = found()
        assert len(spans) == count, spans
        return spans


def spans_in(export: ExportTraceServiceRequest) -> list[Span]:
    """Return the spans of one export."""
    return [
        _span(span, values_of(group.resource.attributes))
        for group in export.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _span(span: Any, resource: dict[str, Any]) -> Span:  # noqa: ANN401 - a message of protobuf
    return Span(
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        flags=span.flags,
        status=STATUSES[span.status.code],
        attributes=values_of(span.attributes),
        resource=resource,
    )


def values_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Return attributes as a dictionary; AssertionError where one comes twice."""
    values = [(pair.key, getattr(pair.value, pair.value.WhichOneof("value") or "")) for pair in pairs]
    assert len(dict(values)) == len(values), values
    return dict(values)
