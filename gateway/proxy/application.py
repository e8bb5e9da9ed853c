"""Where an ingress brings its requests: makes an exchange of each, and knows how many there are.

What belongs to no exchange is answered here too: other paths than the proxy's, CORS preflights, bytes that are no
request. Nothing of the ops listener is served here.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.http.fields import first
from gateway.http.interfaces import Gate, Handler
from gateway.http.problem import Problem, refusal
from gateway.http.request_ids import RequestIds
from gateway.http.responses import ALLOW
from gateway.http.traceparent import traceparent_of
from gateway.proxy.capacity import Capacity
from gateway.proxy.exchange import Exchange
from gateway.telemetry.record import ExchangeRecord

if TYPE_CHECKING:
    from gateway.http.interfaces import Caller
    from gateway.http.message import Fault, RequestHead
    from gateway.platform.memory_pressure import MemoryPressure
    from gateway.proxy.authorization import Admission
    from gateway.proxy.services import Services
    from gateway.telemetry.tracing.tracer import Tracer

PROXY_PATH: Final = b"/api/fal/proxy"
USAGE_PATH: Final = b"/api/fal/usage"
_OK: Final = 200
_NO_CONTENT: Final = 204
_RETRY_SOON: Final = ((b"retry-after", b"1"),)
_DRAINING: Final = refusal("draining", "This gateway is about to stop; try again.", _RETRY_SOON)
_LOST: Final = refusal(
    "gateway_error", "This gateway stopped before the answer had come; the request may have been executed."
)
_BUG: Final = refusal("gateway_error", "This gateway failed over the request.")
_NO_METHOD: Final = "-"
_NO_MEMORY: Final = refusal("capacity_reached", "This gateway is short of memory; try again.", _RETRY_SOON)
_LARGE_BYTES: Final = 1_048_576
_ELSEWHERE: Final = refusal("path_unknown", "The proxy is at /api/fal/proxy; there is nothing else here.")


class Unanswerable(Handler):
    """The handler of a request that was answered in its head; what still comes of it is nobody's."""

    def on_content(self, piece: bytes) -> None:
        """Let it pass."""

    def on_end(self) -> None:
        """Let it pass."""

    def on_drained(self) -> None:
        """Let it pass."""

    def on_broken(self, fault: Fault | None) -> None:
        """Let it pass."""


class ProxyApplication(Gate):
    """Takes the requests of a worker's callers."""

    def __init__(
        self, services: Services, *, max_inflight: int, pressure: MemoryPressure, tracer: Tracer | None = None
    ) -> None:
        """Take what exchanges work with, how many there may be at once, how near the memory limit is, and what traces.

        Without a tracer a caller's `traceparent` passes as it came.
        """
        self.services = services
        self._pressure = pressure
        self._capacity = Capacity(max_inflight)
        self._tracer = tracer
        self._answered = Unanswerable()
        self._ids = RequestIds()
        self.draining = False

    @property
    def inflight(self) -> int:
        """How many exchanges are under way, those included whose callers have left."""
        return self._capacity.inflight

    def stop(self) -> int:
        """End every exchange, each with its own event; returns how many there were."""
        exchanges = self._capacity.exchanges()
        for exchange in exchanges:
            exchange.stop(_DRAINING, _LOST)
        return len(exchanges)

    def open(self, head: RequestHead, caller: Caller) -> Exchange | Unanswerable:
        """Take a request."""
        now = self.services.wall()
        record = ExchangeRecord(self._ids.next(now), head.method)
        if not _is_proxy_path(head.path):
            self._tell(head, caller, record)
            return self._answered
        if self._tracer is None:
            record.traceparent = traceparent_of(head.fields)
        else:
            self._tracer.begin(record, head)
        if head.method == "OPTIONS":
            self._preflight(head, caller, record)
            return self._answered
        admission = self.services.authorizer.admit(head, now=now)
        capacity = self._capacity
        exchange = Exchange(self.services, admission, caller, record=record, capacity=capacity)
        _note(record, admission)
        problem = self.services.judged(admission.problem, head) or self._crowded(head.length, record.team)
        if problem is not None:
            exchange.refuse(problem)
            return exchange
        capacity.begin(exchange)
        self.services.meter.open(record)
        try:
            exchange.begin()
        except BaseException:  # a bug goes on to the loop's log; the exchange must not stay open for it
            exchange.give_up(_BUG, "gateway_failed")
            raise
        return exchange

    def _tell(self, head: RequestHead, caller: Caller, record: ExchangeRecord) -> None:
        """Answer what is not for the proxy: a key's holder reads its account, and there is nothing else.

        It is logged, and not counted: `requests_total` is of the proxy.
        """
        is_usage = head.path.partition(b"?")[0] == USAGE_PATH
        if is_usage and head.method == "OPTIONS":
            self._answer_preflight(head, caller, record)
        else:
            page = first(head.fields, b"origin")
            told = self.services.account(head, record) if is_usage and head.method == "GET" else _ELSEWHERE
            if isinstance(told, bytes):
                record.status, record.response_bytes = _OK, len(told)
                caller.respond(_OK, self.services.replies.document(request_id=record.request_id, page=page), len(told))
                caller.send((told,), last=True)
            else:
                self._answer(told, caller, record, page=page)
        record.duration_seconds = monotonic() - head.received_at
        self.services.meter.log(record)

    def reject(self, fault: Fault, caller: Caller) -> None:
        """Answer what was no request; counted as one, since it may have been one for the proxy."""
        fields = (ALLOW,) if fault.error_type == "method_not_allowed" else ()
        record = ExchangeRecord(self._ids.next(self.services.wall()), _NO_METHOD)
        if self._tracer is not None:
            self._tracer.begin(record, None)
        self._answer(refusal(fault.error_type, fault.detail, fields), caller, record, page=None)
        self.services.meter.close(record)

    def _preflight(self, head: RequestHead, caller: Caller, record: ExchangeRecord) -> None:
        """Answer OPTIONS, which needs no key (Fetch standard, section 3.3.2)."""
        self._answer_preflight(head, caller, record)
        record.duration_seconds = monotonic() - head.received_at
        self.services.meter.close(record)

    def _answer_preflight(self, head: RequestHead, caller: Caller, record: ExchangeRecord) -> None:
        asked = first(head.fields, b"access-control-request-headers")
        page = first(head.fields, b"origin")
        record.status = _NO_CONTENT
        caller.respond(
            _NO_CONTENT, self.services.replies.preflight(asked, request_id=record.request_id, page=page), None
        )
        caller.send((), last=True)

    def _crowded(self, length: int | None, team: str) -> Problem | None:
        if self.draining:
            return _DRAINING
        if self._pressure.share and self._pressure.refuses(large=not 0 <= (length or 0) <= _LARGE_BYTES):
            return _NO_MEMORY
        return self._capacity.refusal(team, self.services.authorizer.max_share)

    def _answer(self, problem: Problem, caller: Caller, record: ExchangeRecord, *, page: bytes | None) -> None:
        lines, content = self.services.replies.problem(problem, request_id=record.request_id, page=page)
        record.status, record.error_type, record.outcome = problem.status, problem.error_type, "refused"
        record.response_bytes = len(content)
        caller.respond(problem.status, lines, len(content))
        caller.send((content,), last=True)


def _is_proxy_path(target: bytes) -> bool:
    """Return whether a path, with its query, is the proxy's."""
    path = target.partition(b"?")[0]
    return path == PROXY_PATH or path.startswith(PROXY_PATH + b"/")


def _note(record: ExchangeRecord, admission: Admission) -> None:
    """Write down whose request it is and what it asks for, as far as that was found out."""
    if admission.principal is not None:
        record.key, record.team = admission.principal.key, admission.principal.team
    if admission.call is not None and admission.target is not None:
        record.host = admission.target.host
        record.endpoint, record.billing = admission.call.endpoint, admission.call.billing
