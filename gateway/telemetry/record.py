"""One exchange's record: what is known of it, from its head to its end.

The decision: one slots object that the exchange fills in as it goes, so that counting, the log and traces take the same
figures, and a request makes no other object for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from gateway.telemetry.metrics.endpoint_labels import NONE

if TYPE_CHECKING:
    from decimal import Decimal

    from gateway.http.traceparent import Trace

Outcome = Literal["ok", "refused", "origin_failed", "cut", "client_gone", "gateway_failed"]
"""How an exchange ended; the closed set of the log's `outcome`.

`ok`: the origin's answer was relayed whole, whatever its status. `refused`: by the gateway, nothing was sent.
`origin_failed`: the client got our answer for the origin's fault. `cut`: the head was out, then it broke.
`client_gone`: the client left first. `gateway_failed`: a bug of ours.
"""

NOT_COUNTED: Final = -1
UNKNOWN: Final = "unknown"
ANONYMOUS: Final = "anonymous"
"""Keys of callers without a valid key: where one is needed, and where none is."""

CLIENT_GONE_STATUS: Final = 499
"""Counted in place of a status where the client left before the head went out."""


class ExchangeRecord:
    """What is known of one request, filled in as it goes. Times in seconds, contents in bytes.

    `sent_seconds` is when the origin's part began, counted from the head. `traceparent` is the caller's, unread, and
    kept where nothing is traced here; else `trace` is this exchange's place.
    """

    __slots__ = (
        "billing",
        "closed",
        "cost_source",
        "cost_usd",
        "duration_seconds",
        "endpoint",
        "error_type",
        "fal_request_id",
        "first_byte_seconds",
        "host",
        "inflight_cell",
        "key",
        "method",
        "outcome",
        "overhead_seconds",
        "request_bytes",
        "request_id",
        "response_bytes",
        "sent_seconds",
        "status",
        "team",
        "timestamp",
        "trace",
        "traceparent",
        "units",
    )

    def __init__(self, request_id: str, method: str) -> None:
        """Begin a record that says no more than that a request came."""
        self.request_id = request_id
        self.fal_request_id: str | None = None
        self.key = UNKNOWN
        self.team = UNKNOWN
        self.method = method
        self.host: str | None = None
        self.endpoint = NONE
        self.billing: str = NONE
        self.status = CLIENT_GONE_STATUS
        self.outcome: Outcome = "ok"
        self.error_type: str | None = None
        self.duration_seconds = 0.0
        self.first_byte_seconds: float | None = None
        self.overhead_seconds: float | None = None
        self.request_bytes = 0
        self.response_bytes = 0
        self.sent_seconds: float | None = None
        self.traceparent: bytes | None = None
        self.trace: Trace | None = None
        self.units: Decimal | None = None
        self.cost_usd: Decimal | None = None
        self.cost_source: str | None = None
        self.timestamp = 0.0
        self.inflight_cell = NOT_COUNTED
        self.closed = False
