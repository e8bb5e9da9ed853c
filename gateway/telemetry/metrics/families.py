"""Every metric family of the gateway, in one place: names, kinds, labels, buckets.

The decision: metrics are an interface, so what dashboards and alerts rely on is a table and nothing but a table.
Labels come from closed sets (declared here) or from configured ones; where a process's memory for series is full, the
configured ones collapse to `other`, and the closed ones stay, so that nothing is left uncounted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gateway.telemetry.metrics.endpoint_labels import OTHER

PREFIX: Final = "fal_gateway_"

CLASSES: Final = ("paid", "free", "none")
"""What a request is in money's eyes; `none` where it was refused before that was known."""

ORIGIN_ERRORS: Final = (
    "dns_error",
    "connection_refused",
    "tls_error",
    "connection_timeout",
    "origin_failed",
    "origin_timeout",
    "upstream_unauthorized",
)
"""Error types that are the origin's fault, and not a refusal by the gateway."""

UPSTREAM_REFUSALS_OF: Final = ("rate_limited", "account_locked", "credential_rejected", "other")
"""Why fal itself refused what was sent: fal/refusals.py says which answer is which."""

PROCESSES: Final = ("worker", "ledger", "ops", "policy", "supervisor")
"""What a process of the gateway is there for."""

CLOSED_LABELS: Final = frozenset({"class", "status", "error_type", "state", "source", "reason", "process", "version"})
"""Labels whose values are a closed set; all others are configured, or bounded by `endpoints`."""

DURATION_BUCKETS: Final[tuple[float, ...]] = (
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.03,
    0.1,
    0.3,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    100.0,
    300.0,
    900.0,
)
"""Upper bounds in seconds: the gateway's own share at the low end, pictures in the middle, films at the high end."""

LAG_BUCKETS: Final[tuple[float, ...]] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds; a loop that waits on epoll is up to a millisecond late by itself."""

HISTOGRAM_CELLS: Final = len(DURATION_BUCKETS) + 2
"""A cell for each bucket (not cumulative), one above the last bound, and the sum in microseconds."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family: its name without the prefix, what it is, its label names, and its help text.

    Cells are whole numbers; `parts` of them make one of what is shown. `bounds` are the upper ones of a histogram's
    buckets, in seconds.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    documentation: str
    parts: int = 1
    bounds: tuple[float, ...] = DURATION_BUCKETS

    @property
    def width(self) -> int:
        """Cells of one series."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1

    def overflow(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the label values to count under where there is no room for more series."""
        pairs = zip(self.labels, labels, strict=True)
        return tuple(value if name in CLOSED_LABELS else OTHER for name, value in pairs)


REQUESTS: Final = Family(
    "requests_total",
    "counter",
    ("team", "key", "endpoint", "class", "status"),
    "Requests to the data path, refused ones too, by the status that the client got (499: it left before the head).",
)
REQUEST_DURATION: Final = Family(
    "request_duration_seconds", "histogram", ("class",), "Time from the request's head to the end of the answer."
)
FIRST_BYTE: Final = Family(
    "first_byte_seconds", "histogram", ("class",), "Time from the request's head to the first byte of the answer."
)
OVERHEAD: Final = Family(
    "overhead_seconds", "histogram", ("class",), "The gateway's own share of the time to the first byte."
)
REQUEST_BYTES: Final = Family("request_bytes_total", "counter", ("team", "class"), "Bytes of request content taken.")
RESPONSE_BYTES: Final = Family("response_bytes_total", "counter", ("team", "class"), "Bytes of answer content sent.")
INFLIGHT_REQUESTS: Final = Family("inflight_requests", "gauge", ("class",), "Exchanges that are open now.")
REFUSALS: Final = Family(
    "refusals_total", "counter", ("team", "key", "error_type"), "Requests that the gateway itself refused."
)
UPSTREAM_FAILURES: Final = Family(
    "upstream_failures_total", "counter", ("error_type",), "Exchanges that failed by the origin's fault."
)
UPSTREAM_REFUSALS: Final = Family(
    "upstream_refusals_total", "counter", ("reason",), "Answers by which fal itself refused what was sent."
)
CLIENTS_GONE: Final = Family("clients_gone_total", "counter", (), "Clients that left before their answer was whole.")
LOG_LINES_DROPPED: Final = Family(
    "log_lines_dropped_total", "counter", (), "Log lines lost to a full queue, a stalled reader or a full disk."
)
TRACE_SPANS_DROPPED: Final = Family(
    "trace_spans_dropped_total", "counter", (), "Spans lost to a full queue, or to a receiver that did not take them."
)
POLICY_RELOAD_ERRORS: Final = Family(
    "policy_reload_errors_total", "counter", (), "Reloads of the policy, or of a team's credential, that failed."
)
PROCESS_RESTARTS: Final = Family(
    "process_restarts_total", "counter", ("process",), "Processes that died, and are started again."
)

COST: Final = Family(
    "cost_usd_total", "counter", ("team", "key", "endpoint", "source"), "US dollars spent, by how sure that is.", 10**9
)
LEDGER_COST: Final = Family(
    "ledger_cost_usd",
    "gauge",
    ("team", "key", "endpoint", "source"),
    "US dollars spent, over all time and all gateways of the database, as the ledger has them.",
    10**9,
)
ABANDONED_COST: Final = Family(
    "abandoned_cost_usd_total",
    "counter",
    ("team", "key"),
    "US dollars spent on paid requests whose client had left before the answer was whole.",
    10**9,
)
UNITS: Final = Family(
    "billable_units_total", "counter", ("team", "key", "endpoint", "unit"), "Units that fal billed.", 10**6
)
UNPRICED: Final = Family(
    "unpriced_requests_total", "counter", ("endpoint",), "Paid requests whose cost is not known: there is no price."
)
BUDGET_LIMIT: Final = Family("budget_limit_usd", "gauge", ("scope", "id", "period"), "What a budget allows.", 10**9)
BUDGET_SPENT: Final = Family(
    "budget_spent_usd", "gauge", ("scope", "id", "period"), "Spent of a budget in its present period.", 10**9
)
BUDGET_RESERVED: Final = Family(
    "budget_reserved_usd", "gauge", ("scope", "id", "period"), "Held of a budget for requests under way.", 10**9
)
BUDGET_WARNINGS: Final = Family(
    "budget_warnings_total", "counter", ("scope", "id", "period"), "Warnings that a share of a budget was spent."
)
BILLING_DRIFT: Final = Family(
    "billing_drift_usd", "gauge", ("endpoint",), "fal's bill less our figures, as of the last comparison.", 10**9
)
LOST_PURCHASES: Final = Family(
    "ledger_lost_purchases_total", "counter", (), "Purchases, or ends of them, that could not be written down."
)
STATE_STORE_ERRORS: Final = Family(
    "state_store_errors_total", "counter", (), "Calls to the shared store that failed, or came too late."
)
SHADOW_REFUSALS: Final = Family(
    "shadow_refusals_total", "counter", ("team", "key"), "Refusals that limits in shadow mode would have made."
)
DEGRADED_REQUESTS: Final = Family(
    "degraded_requests_total", "counter", (), "Requests whose limits were judged while the shared store was away."
)

EVENT_LOOP_LAG: Final = Family(
    "event_loop_lag_seconds",
    "histogram",
    (),
    "How late a worker's event loop came to a call that was due, four times a second.",
    bounds=LAG_BUCKETS,
)
UPSTREAM_CONNECTIONS: Final = Family("upstream_connections", "gauge", (), "Connections to origins that are open now.")
CLIENT_CONNECTIONS: Final = Family("client_connections", "gauge", (), "Connections of callers that are open now.")

COUNTED: Final = (
    REQUESTS,
    REQUEST_DURATION,
    FIRST_BYTE,
    OVERHEAD,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    INFLIGHT_REQUESTS,
    REFUSALS,
    UPSTREAM_FAILURES,
    UPSTREAM_REFUSALS,
    CLIENTS_GONE,
    EVENT_LOOP_LAG,
    UPSTREAM_CONNECTIONS,
    CLIENT_CONNECTIONS,
    LOG_LINES_DROPPED,
    TRACE_SPANS_DROPPED,
    BUDGET_LIMIT,
    BUDGET_SPENT,
    BUDGET_RESERVED,
    BUDGET_WARNINGS,
    BILLING_DRIFT,
    LOST_PURCHASES,
    COST,
    LEDGER_COST,
    ABANDONED_COST,
    UNITS,
    UNPRICED,
    STATE_STORE_ERRORS,
    SHADOW_REFUSALS,
    DEGRADED_REQUESTS,
    POLICY_RELOAD_ERRORS,
    PROCESS_RESTARTS,
)
"""Families that live in the cells of each process and are summed at a scrape."""

OF_A_LIFE: Final = (INFLIGHT_REQUESTS, UPSTREAM_CONNECTIONS, CLIENT_CONNECTIONS)
"""Those among them that tell of a process's present, and are 0 once it is gone."""

LEDGER_UP: Final = Family("ledger_up", "gauge", (), "Whether the ledger's database takes what is written down.")
SPOOL_BYTES: Final = Family("ledger_spool_bytes", "gauge", (), "Journals that the ledger has still to take.")
STATE_STORE_UP: Final = Family(
    "state_store_up", "gauge", (), "Whether the state of limits is to be had; always 1 where it is local."
)
REPLICAS: Final = Family("replicas", "gauge", (), "Gateways that share the state of limits, this one among them.")
POLICY_GENERATION: Final = Family(
    "policy_generation", "gauge", (), "Policy generation that every ready worker has reached; 0 where none is ready."
)
WORKERS: Final = Family("workers", "gauge", ("state",), "Worker processes by state.")
BUILD_INFO: Final = Family("build_info", "gauge", ("version",), "The release that runs; always 1.")

INFLIGHT_LIMIT: Final = Family(
    "inflight_limit", "gauge", (), "Exchanges that the workers that are ready may have open at once, all together."
)
OPEN_FDS: Final = Family("open_fds", "gauge", ("process",), "Descriptors that are open now.")
MAX_FDS: Final = Family("max_fds", "gauge", ("process",), "Descriptors that may be open at once.")
RESIDENT_MEMORY: Final = Family(
    "resident_memory_bytes", "gauge", ("process",), "Memory in use; what processes share is counted in each of them."
)
CPU_SECONDS: Final = Family(
    "cpu_seconds_total", "counter", ("process",), "CPU time used, in user and system mode; of dead ones too.", 10**6
)

READ_AT_A_SCRAPE: Final = (
    WORKERS,
    LEDGER_UP,
    SPOOL_BYTES,
    STATE_STORE_UP,
    REPLICAS,
    POLICY_GENERATION,
    BUILD_INFO,
    INFLIGHT_LIMIT,
    OPEN_FDS,
    MAX_FDS,
    RESIDENT_MEMORY,
    CPU_SECONDS,
)
"""Families without cells: what the scoreboard and the kernel say."""

FAMILIES: Final = (*COUNTED, *READ_AT_A_SCRAPE)
"""Every family that `/metrics` shows."""
