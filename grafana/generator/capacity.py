"""The Capacity dashboard: how full each gateway is, what it uses, and whether what it leans on is there."""

from __future__ import annotations

from typing import Final

from grafana.generator import variables
from grafana.generator.page import Page, Section, shelf
from grafana.generator.panels import COUNT, Column, Line, Look, gauges, graph, listing, number
from grafana.generator.queries import RATE, at_least_zero, counted, largest, per_second, quantile, ratio, select, total

WARN: Final = "orange"
BAD: Final = "red"
GOOD: Final = "green"
POD: Final = "instance"
UP: Final = Look(words=(("0", "down", BAD), ("1", "up", GOOD)))
FULL: Final = ((0.0, GOOD), (0.7, WARN), (0.9, BAD))
ESTIMATE: Final = "About: a counter's rise in the range."
PROCESS: Final = f"{POD}, process"

USED: Final = ratio(total("inflight_requests", by=POD), total("inflight_limit", by=POD))
FDS_USED: Final = ratio(total("open_fds", by=PROCESS), total("max_fds", by=PROCESS))
CPU: Final = f"sum by ({PROCESS}) (rate({select('cpu_seconds_total')}[{RATE}]))"
READY: Final = total("workers", matchers='state="ready"')


def lowest(family: str) -> str:
    """Return the smallest value of a gauge among the gateways."""
    return f"min ({select(family)})"


NOW: Final = Section(
    "Now",
    (
        shelf(
            4,
            (
                4,
                number(
                    "Workers ready",
                    "Worker processes that take requests.",
                    COUNT,
                    READY,
                    Look(0, ((0, BAD), (1, GOOD))),
                ),
            ),
            (4, number("Replicas", "Gateways that share the state of limits.", COUNT, largest("replicas"), Look(0))),
            (
                4,
                number(
                    "Ledger",
                    "Whether the ledger's database takes what is written down, in every gateway; while it is down, "
                    "journals wait on disk.",
                    "short",
                    lowest("ledger_up"),
                    UP,
                ),
            ),
            (
                4,
                number(
                    "State store",
                    "Whether the state of limits is to be had, in every gateway; always up where it is local.",
                    "short",
                    lowest("state_store_up"),
                    UP,
                ),
            ),
            (
                4,
                number(
                    "Policy generation",
                    "The generation that every ready worker has reached, counted from each gateway's start; the lowest "
                    "of all gateways. 0: none is ready.",
                    COUNT,
                    lowest("policy_generation"),
                    Look(0),
                ),
            ),
            (
                4,
                number(
                    "Reloads that failed",
                    f"A policy or a credential that was refused: the log's `policy_reload_failed` says why. {ESTIMATE}",
                    COUNT,
                    at_least_zero(counted("policy_reload_errors_total")),
                    Look(0, ((1, BAD),)),
                ),
            ),
        ),
    ),
)

LOAD: Final = Section(
    "Load",
    (
        shelf(
            9,
            (
                8,
                graph(
                    "In flight, and the limit",
                    "Exchanges that are open in each gateway, and how many its ready workers may have open "
                    "(`FALGW_MAX_INFLIGHT` for each): beyond it callers get 503.",
                    "short",
                    Line(total("inflight_requests", by=POD), "{{instance}}"),
                    Line(total("inflight_limit", by=POD), "{{instance}} limit"),
                ),
            ),
            (
                8,
                gauges(
                    "How full",
                    "Exchanges that are open as a share of the limit, by gateway; one that drains is left out.",
                    "percentunit",
                    Line(USED, "{{instance}}"),
                    bands=FULL,
                ),
            ),
            (
                8,
                graph(
                    "Event-loop lag",
                    "How late workers' event loops come to what is due: above some 50 ms a worker has more to do than "
                    "it can, or something blocks it.",
                    "s",
                    Line(quantile(0.5, "event_loop_lag_seconds"), "p50"),
                    Line(quantile(0.95, "event_loop_lag_seconds"), "p95"),
                    Line(quantile(0.99, "event_loop_lag_seconds"), "p99"),
                ),
            ),
        ),
        shelf(
            9,
            (
                8,
                graph(
                    "CPU",
                    "Cores used, by gateway and kind of process. Workers that come near one core each want company.",
                    "short",
                    Line(CPU, "{{instance}} {{process}}"),
                    stacked=True,
                ),
            ),
            (
                8,
                graph(
                    "Memory",
                    "Resident memory, by gateway and kind of process; what processes share counts in each.",
                    "bytes",
                    Line(total("resident_memory_bytes", by=PROCESS), "{{instance}} {{process}}"),
                    stacked=True,
                ),
            ),
            (
                8,
                graph(
                    "Connections",
                    "Open connections of callers and to fal, by gateway.",
                    "short",
                    Line(total("client_connections", by=POD), "{{instance}} callers"),
                    Line(total("upstream_connections", by=POD), "{{instance}} to fal"),
                ),
            ),
        ),
        shelf(
            8,
            (
                8,
                graph(
                    "Open descriptors",
                    "Sockets and files, by gateway and kind of process.",
                    "short",
                    Line(total("open_fds", by=PROCESS), "{{instance}} {{process}}"),
                ),
            ),
            (
                8,
                gauges(
                    "Descriptors used",
                    "As a share of what may be open (`ulimit -n`), by gateway and kind of process.",
                    "percentunit",
                    Line(FDS_USED, "{{instance}} {{process}}"),
                    bands=FULL,
                ),
            ),
            (
                8,
                graph(
                    "Workers by state",
                    "Worker processes: starting, ready, draining, stopped.",
                    "short",
                    Line(total("workers", by="state"), "{{state}}"),
                    stacked=True,
                ),
            ),
        ),
    ),
)

LEANS: Final = Section(
    "What it leans on",
    (
        shelf(
            8,
            (
                8,
                graph(
                    "Journals that wait",
                    "Bytes that the ledger has still to take out of the spool; it grows while the database is away.",
                    "bytes",
                    Line(total("ledger_spool_bytes", by=POD), "{{instance}}"),
                    stacked=True,
                ),
            ),
            (
                8,
                graph(
                    "Ledger and state store",
                    "1 while they are to be had, by gateway.",
                    "short",
                    Line(largest("ledger_up", by=POD), "{{instance}} ledger"),
                    Line(largest("state_store_up", by=POD), "{{instance}} state store"),
                ),
            ),
            (
                8,
                graph(
                    "Without the state store",
                    "Rates of calls to the shared store that failed or came too late, and of requests whose limits "
                    "were judged without it.",
                    "cps",
                    Line(per_second("state_store_errors_total"), "store errors"),
                    Line(per_second("degraded_requests_total"), "degraded requests"),
                ),
            ),
        ),
        shelf(
            8,
            (
                8,
                graph(
                    "Policy",
                    "How often each gateway has taken a new policy since it started. Gateways that started at another "
                    "time differ; a line that does not rise with the others has not taken the last change.",
                    "short",
                    Line(total("policy_generation", by=POD), "{{instance}}"),
                ),
            ),
            (
                8,
                graph(
                    "Lost on the way out",
                    "Rates of log lines that were dropped (a full queue, a stalled reader, a full disk), of trace "
                    "spans, and of purchases that could not be written down. Requests are not held up by them.",
                    "cps",
                    Line(per_second("log_lines_dropped_total"), "log lines"),
                    Line(per_second("trace_spans_dropped_total"), "trace spans"),
                    Line(per_second("ledger_lost_purchases_total"), "purchases"),
                ),
            ),
            (
                4,
                number(
                    "Processes that died",
                    f"Workers and the like that died in the range, and were started again. {ESTIMATE}",
                    COUNT,
                    at_least_zero(counted("process_restarts_total")),
                    Look(0, ((1, WARN),)),
                ),
            ),
            (
                4,
                listing(
                    "Releases",
                    "How many gateways run which release.",
                    {"version": "Release"},
                    Column("Gateways", f"count by (version) ({select('build_info')})", COUNT, 0),
                ),
            ),
        ),
    ),
)

CAPACITY: Final = Page(
    "Capacity",
    "How full each gateway is, what it uses, and whether what it leans on is there.",
    "now-6h",
    (variables.source(), variables.gateways()),
    (NOW, LOAD, LEANS),
)
