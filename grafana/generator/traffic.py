"""The Traffic dashboard: who asks how much, how it ends, how long it takes, and what is refused."""

from __future__ import annotations

from typing import Final

from grafana.generator import variables
from grafana.generator.page import Page, Section, shelf
from grafana.generator.panels import COUNT, Column, Line, Look, graph, listing, number
from grafana.generator.queries import CALLER, at_least_zero, counted, per_second, quantile, ratio, total

CALLS: Final = (*CALLER, "class")
OWNER: Final = ("team", "key")
BY_CALLER: Final = ", ".join(CALLER)
REFUSED_4XX: Final = 'status=~"4.."'
ERRORS: Final = 'status=~"5.."'
WARN: Final = "orange"
BAD: Final = "red"
ALL_CALLERS: Final = "Of all callers together: times are kept by class alone."
ESTIMATE: Final = "About: a counter's rise in the range."

REQUESTS: Final = per_second("requests_total", *CALLS)
ERROR_SHARE: Final = ratio(at_least_zero(per_second("requests_total", *CALLS, matchers=ERRORS)), REQUESTS)
REFUSED_SHARE: Final = ratio(at_least_zero(per_second("refusals_total", *OWNER)), per_second("requests_total", *OWNER))
SLOW: Final = quantile(0.95, "request_duration_seconds", "class", window="$__range")


def quantiles(family: str) -> tuple[Line, ...]:
    """Return the median and the higher quantiles of a histogram, by class."""
    shares = (0.5, 0.95, 0.99)
    return tuple(
        Line(quantile(share, family, "class", by="class"), f"{{{{class}}}} p{share * 100:g}") for share in shares
    )


def requests(matchers: str = "") -> str:
    """Return the requests of each caller and endpoint in the range, where there were any."""
    return f"{counted('requests_total', *CALLS, by=BY_CALLER, matchers=matchers)} > 0"


NOW: Final = Section(
    "Now",
    (
        shelf(
            4,
            (4, number("Requests", "Rate, refused ones too.", "reqps", REQUESTS, Look(2))),
            (
                4,
                number(
                    "Errors",
                    "Share of answers with a status of 500 and above, ours and fal's.",
                    "percentunit",
                    ERROR_SHARE,
                    Look(2, ((0.01, WARN), (0.05, BAD))),
                ),
            ),
            (
                4,
                number(
                    "Refused",
                    "Share of requests that the gateway itself refused, of every class and endpoint.",
                    "percentunit",
                    REFUSED_SHARE,
                    Look(2, ((0.05, WARN),)),
                ),
            ),
            (4, number("95 of 100 took less than", f"Of the range's requests. {ALL_CALLERS}", "s", SLOW, Look(2))),
            (4, number("In flight", "Exchanges that are open now.", "short", total("inflight_requests", "class"))),
            (
                4,
                number(
                    "Clients gone",
                    f"Clients that left before their answer was whole. {ESTIMATE}",
                    COUNT,
                    at_least_zero(counted("clients_gone_total")),
                    Look(0),
                ),
            ),
        ),
    ),
)

FLOW: Final = Section(
    "Requests",
    (
        shelf(
            9,
            (
                12,
                graph(
                    "Requests over time",
                    "Rate, split as chosen above.",
                    "reqps",
                    Line(per_second("requests_total", *CALLS, by="$by"), "{{$by}}"),
                    stacked=True,
                ),
            ),
            (
                12,
                graph(
                    "Answers by status",
                    "Rate, by the status that the client got; 499: it left before the head.",
                    "reqps",
                    Line(per_second("requests_total", *CALLS, by="status"), "{{status}}"),
                    stacked=True,
                ),
            ),
        ),
        shelf(
            9,
            (
                8,
                graph(
                    "Errors and refusals",
                    "Shares of requests: answered 500 and above, and refused by the gateway itself.",
                    "percentunit",
                    Line(ERROR_SHARE, "errors"),
                    Line(REFUSED_SHARE, "refused"),
                ),
            ),
            (
                16,
                listing(
                    "By caller and endpoint",
                    f"All requests, those answered 400 to 499, and those answered 500 and above. {ESTIMATE}",
                    {"team": "Team", "key": "Key", "endpoint": "Endpoint"},
                    Column("Requests", requests(), COUNT, 0),
                    Column("4xx", requests(REFUSED_4XX), COUNT, 0),
                    Column("5xx", requests(ERRORS), COUNT, 0, ((1, BAD),)),
                    sort_by="Requests",
                ),
            ),
        ),
    ),
)

REFUSALS: Final = Section(
    "Refusals",
    (
        shelf(
            9,
            (
                8,
                graph(
                    "Refusals by type",
                    "Rate of requests that the gateway itself refused, by `error_type` of the answer.",
                    "reqps",
                    Line(per_second("refusals_total", *OWNER, by="error_type"), "{{error_type}}"),
                    stacked=True,
                ),
            ),
            (
                8,
                listing(
                    "Who is refused, and why",
                    f"By key and `error_type`. {ESTIMATE}",
                    {"team": "Team", "key": "Key", "error_type": "Why"},
                    Column("Refused", f"{counted('refusals_total', *OWNER, by='team, key, error_type')} > 0", COUNT, 0),
                    sort_by="Refused",
                ),
            ),
            (
                8,
                graph(
                    "Would be refused",
                    "Rate of refusals that limits in shadow mode would have made: nothing was refused.",
                    "reqps",
                    Line(per_second("shadow_refusals_total", *OWNER, by="team, key"), "{{team}} {{key}}"),
                    stacked=True,
                ),
            ),
        ),
    ),
)

TIMES: Final = Section(
    "Times",
    (
        shelf(
            9,
            (
                8,
                graph(
                    "Whole request",
                    f"From the request's head to the end of the answer. {ALL_CALLERS}",
                    "s",
                    *quantiles("request_duration_seconds"),
                ),
            ),
            (
                8,
                graph(
                    "First byte",
                    f"From the request's head to the first byte of the answer. {ALL_CALLERS}",
                    "s",
                    *quantiles("first_byte_seconds"),
                ),
            ),
            (
                8,
                graph(
                    "The gateway's own share",
                    f"What the gateway adds to the time to the first byte. {ALL_CALLERS}",
                    "s",
                    *quantiles("overhead_seconds"),
                ),
            ),
        ),
    ),
)

VOLUME: Final = Section(
    "Volume",
    (
        shelf(
            8,
            (
                8,
                graph(
                    "Content taken",
                    "Rate of bytes of request content, by team and class.",
                    "Bps",
                    Line(per_second("request_bytes_total", "team", "class", by="team, class"), "{{team}} {{class}}"),
                    stacked=True,
                ),
            ),
            (
                8,
                graph(
                    "Content sent",
                    "Rate of bytes of answer content, by team and class.",
                    "Bps",
                    Line(per_second("response_bytes_total", "team", "class", by="team, class"), "{{team}} {{class}}"),
                    stacked=True,
                ),
            ),
            (
                8,
                graph(
                    "In flight, and clients gone",
                    "Exchanges that are open, by class; and how many clients left in a minute before their answer "
                    "was whole.",
                    "short",
                    Line(total("inflight_requests", "class", by="class"), "{{class}} in flight"),
                    Line(f"60 * {per_second('clients_gone_total')}", "gone in a minute"),
                ),
            ),
        ),
    ),
)

TRAFFIC: Final = Page(
    "Traffic",
    "Who asks how much, how it ends, how long it takes, and what the gateway refuses.",
    "now-6h",
    (
        variables.source(),
        variables.gateways(),
        *variables.labels_of("requests_total", *CALLS),
        variables.grouping("team", "key", "endpoint", "class", "status"),
    ),
    (NOW, FLOW, REFUSALS, TIMES, VOLUME),
)
