"""The Upstream dashboard: how fal behaves, as this gateway sees it: failures, refusals, times, connections."""

from __future__ import annotations

from typing import Final

from grafana.generator import variables
from grafana.generator.page import Page, Section, shelf
from grafana.generator.panels import COUNT, Column, Line, Look, graph, listing, note, number
from grafana.generator.queries import at_least_zero, counted, per_second, quantile, ratio, total

WARN: Final = "orange"
BAD: Final = "red"
ESTIMATE: Final = "About: a counter's rise in the range."
ERRORS: Final = 'status=~"5.."'
FAILURES: Final = per_second("upstream_failures_total")
FAILED_SHARE: Final = ratio(at_least_zero(FAILURES), per_second("requests_total"))
FIRST_BYTE: Final = quantile(0.95, "first_byte_seconds", "class", window="$__range")
NOTE: Final = """\
* **account_locked**: fal answers 403 to everything: unpaid, or over the account's own limit. Nothing helps but fal's \
dashboard.
* **rate_limited**: fal's own 429, of the account and not of a key here. Fewer at once (`concurrent-requests`), or ask \
fal for more.
* **credential_rejected**, **upstream_unauthorized**: 401. The fal key was revoked or mistyped; callers get 500.
* **dns_error**, **connection_refused**, **tls_error**, **connection_timeout**: not reached; nothing was sent or bought.
* **origin_failed**, **origin_timeout**: sent, and no whole answer came; a paid one may have been executed and billed.
"""


def refusals(reason: str) -> str:
    """Return how often fal refused for one reason in the range."""
    return at_least_zero(counted("upstream_refusals_total", matchers=f'reason="{reason}"'))


NOW: Final = Section(
    "In the range",
    (
        shelf(
            4,
            (
                4,
                number(
                    "Failures",
                    f"Exchanges that failed by the origin's fault. {ESTIMATE}",
                    COUNT,
                    at_least_zero(counted("upstream_failures_total")),
                    Look(0, ((1, WARN),)),
                ),
            ),
            (
                4,
                number(
                    "429 by fal",
                    f"Answers by which fal limits the account. {ESTIMATE}",
                    COUNT,
                    refusals("rate_limited"),
                    Look(0, ((1, WARN),)),
                ),
            ),
            (
                4,
                number(
                    "Account locked",
                    f"Answers by which fal says that the account is locked. {ESTIMATE}",
                    COUNT,
                    refusals("account_locked"),
                    Look(0, ((1, BAD),)),
                ),
            ),
            (
                4,
                number(
                    "Credential rejected",
                    f"Answers 401 of fal's to the gateway's own credential. {ESTIMATE}",
                    COUNT,
                    refusals("credential_rejected"),
                    Look(0, ((1, BAD),)),
                ),
            ),
            (
                4,
                number(
                    "95 of 100 began within",
                    "Time to the first byte of the range's answers, the gateway's own share in it.",
                    "s",
                    FIRST_BYTE,
                    Look(2),
                ),
            ),
            (
                4,
                number(
                    "Connections",
                    "Connections to fal that are open now, busy or kept for the next request.",
                    "short",
                    total("upstream_connections"),
                ),
            ),
        ),
    ),
)

FAULTS: Final = Section(
    "Failures and refusals",
    (
        shelf(
            9,
            (
                8,
                graph(
                    "Failures by type",
                    "Rate of exchanges that failed by the origin's fault, by `error_type`.",
                    "reqps",
                    Line(per_second("upstream_failures_total", by="error_type"), "{{error_type}}"),
                    stacked=True,
                ),
            ),
            (
                8,
                graph(
                    "Fal's own refusals",
                    "Rate of answers by which fal itself refused what was sent, by reason.",
                    "reqps",
                    Line(per_second("upstream_refusals_total", by="reason"), "{{reason}}"),
                    stacked=True,
                ),
            ),
            (8, note("What they mean", "What to do about each kind of failure and refusal.", NOTE)),
        ),
        shelf(
            9,
            (
                8,
                graph(
                    "Share that failed",
                    "Failures by the origin's fault as a share of all requests.",
                    "percentunit",
                    Line(FAILED_SHARE, "failed"),
                ),
            ),
            (
                8,
                graph(
                    "Answers of 500 and above",
                    "Rate, by status, as callers got them: fal's own, passed on as they came, and ours for failures "
                    "(500, 502, 504) and where the gateway is full or draining (503).",
                    "reqps",
                    Line(per_second("requests_total", "endpoint", matchers=ERRORS, by="status"), "{{status}}"),
                    stacked=True,
                ),
            ),
            (
                8,
                listing(
                    "Endpoints with errors",
                    f"Answers of 500 and above by endpoint, and all answers beside. {ESTIMATE}",
                    {"endpoint": "Endpoint"},
                    Column(
                        "Errors",
                        f"{counted('requests_total', 'endpoint', by='endpoint', matchers=ERRORS)} > 0",
                        COUNT,
                        0,
                    ),
                    Column("Requests", f"{counted('requests_total', 'endpoint', by='endpoint')} > 0", COUNT, 0),
                    sort_by="Errors",
                ),
            ),
        ),
    ),
)

TIMES: Final = Section(
    "Times and connections",
    (
        shelf(
            9,
            (
                12,
                graph(
                    "First byte",
                    "Time from the request's head to the first byte of the answer, by class; all but the gateway's own "
                    "share (see Traffic) is fal and the way there.",
                    "s",
                    Line(quantile(0.5, "first_byte_seconds", "class", by="class"), "{{class}} p50"),
                    Line(quantile(0.95, "first_byte_seconds", "class", by="class"), "{{class}} p95"),
                    Line(quantile(0.99, "first_byte_seconds", "class", by="class"), "{{class}} p99"),
                ),
            ),
            (
                12,
                graph(
                    "Connections to fal",
                    "Open connections, by gateway: busy ones and those that are kept for the next request.",
                    "short",
                    Line(total("upstream_connections", by="instance"), "{{instance}}"),
                    stacked=True,
                ),
            ),
        ),
    ),
)

UPSTREAM: Final = Page(
    "Upstream",
    "How fal behaves, as this gateway sees it: failures, its own limits and locks, times, connections.",
    "now-6h",
    (variables.source(), variables.gateways(), *variables.labels_of("requests_total", "endpoint", "class")),
    (NOW, FAULTS, TIMES),
)
