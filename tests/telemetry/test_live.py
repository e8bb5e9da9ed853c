"""One page of metrics over a real gateway of two workers: what it says is what was done, series by series.

The gateway is started once, and driven once by traffic of every kind (tour.py); each test reads the page of it.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics

from gateway.telemetry.metrics import families as declared
from tests.harness.gateway import PREFIX
from tests.harness.ports import LOOPBACK
from tests.harness.waiting import until
from tests.money.market import FLUX, Market, run_of
from tests.telemetry.tour import FLUX_NS, KEYS, POLICY, WEB, Labels, Tour

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.samples import Sample

    from tests.harness.emulator import Emulator
    from tests.harness.gateway import Gateway, Metrics

OPEN_METRICS: Final = "application/openmetrics-text;version=1.0.0"
SAMPLE: Final = re.compile(r"^(fal_gateway_[^#\n]*?[\d.e+-]+)( # .*)?$", re.MULTILINE)
"""A sample's line: name, labels and value, and its exemplar."""

BACK_SECONDS: Final = 15.0
SEEN_SECONDS: Final = 30.0
"""For what the ledger has been told; 5 s where the machine has nothing else to do."""

SINCE_THE_START: Final = ("cost_usd_total", "billable_units_total", "abandoned_cost_usd_total")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory, emulator: Emulator) -> Iterator[Market]:
    """Run a gateway of two workers before the emulator."""
    emulator.reset()
    with Market(tmp_path_factory.mktemp("market"), emulator.overrides, POLICY, workers=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def tour(market: Market) -> Tour:
    """Return a tour that is over."""
    return Tour(market).run_all()


@pytest.fixture
def page(tour: Tour) -> Metrics:
    """Return what is shown just now."""
    return tour.market.gateway.metrics()


def counts(page: Metrics, name: str) -> dict[Labels, int]:
    """Return the series of a family that are not zero, in whole cells: nano-dollars, micro-units, requests."""
    family = next(family for family in declared.FAMILIES if family.name == name)
    table = page.table(name, *family.labels)
    return {labels: round(value * family.parts) for labels, value in table.items() if value}


@pytest.mark.parametrize(
    "name",
    [
        "requests_total",
        "refusals_total",
        "upstream_failures_total",
        "upstream_refusals_total",
        "clients_gone_total",
        "cost_usd_total",
        "billable_units_total",
        "unpriced_requests_total",
        "abandoned_cost_usd_total",
        "shadow_refusals_total",
    ],
)
def test_every_series_is_what_was_done(tour: Tour, page: Metrics, name: str) -> None:
    """Each request of every kind is counted once, under its labels, in whichever worker; nothing stands beside it."""
    assert counts(page, name) == dict(tour.counted[name])


def test_there_are_as_many_events_as_counts(tour: Tour, page: Metrics) -> None:
    """What is counted once is logged once."""
    total = sum(tour.counted["requests_total"].values())
    events = until(lambda: _at_least(tour.market.gateway, total), "an event for each request")
    assert len(events) == total == page.value("requests_total")


def _at_least(gateway: Gateway, total: int) -> list[dict[str, object]]:
    events = gateway.events("exchange")
    return events if len(events) >= total else []


def test_durations_are_counted_once_a_request(tour: Tour, page: Metrics) -> None:
    """Every request has a duration, every answer of the origin's a first byte, by class."""
    done: dict[Labels, int] = {}
    for (*_, billing, _status), number in tour.counted["requests_total"].items():
        done[billing,] = done.get((billing,), 0) + number
    assert page.table("request_duration_seconds_count", "class") == done
    first_bytes = page.table("first_byte_seconds_count", "class")
    assert {billing: first_bytes[billing,] for billing in ("paid", "free", "none")} == {
        "none": 0,
        **tour.origin_answers,
    }


def test_bytes_are_the_contents_bytes(tour: Tour, page: Metrics) -> None:
    """Content up and down, without heads, by team and class."""
    for name in ("request_bytes_total", "response_bytes_total"):
        bulky = {labels: count for labels, count in counts(page, name).items() if labels[0] == "bulky"}
        assert bulky == dict(tour.counted[name])


def test_nothing_is_in_flight_and_everything_is_up(page: Metrics) -> None:
    """Gauges say how things stand now."""
    assert counts(page, "inflight_requests") == {}
    assert counts(page, "inflight_limit") == {(): 4_000}
    assert counts(page, "workers") == {("ready",): 2}
    for name in ("ledger_up", "state_store_up", "policy_generation", "replicas"):
        assert page.value(name) == 1, name
    for name in ("policy_reload_errors_total", "state_store_errors_total", "degraded_requests_total"):
        assert page.value(name) == 0, name
    assert page.value("log_lines_dropped_total") == 0


def test_budgets_are_shown(page: Metrics) -> None:
    """Limit, spent and reserved of each configured budget, by whose it is."""
    poor = ("key", "poor", "day")
    assert page.table("budget_limit_usd", "scope", "id", "period") == {poor: 0.01}
    assert page.table("budget_spent_usd", "scope", "id", "period") == {poor: 0}
    assert page.table("budget_reserved_usd", "scope", "id", "period") == {poor: 0}


def test_what_is_configured_stands_at_zero(page: Metrics) -> None:
    """`increase()` sees the first dollar, request and refusal of every key."""
    costs, requests = page.table("cost_usd_total", "key", "endpoint", "source"), page.table("requests_total", "key")
    refusals = page.table("refusals_total", "key", "error_type")
    for key in KEYS:
        assert (key.id, FLUX, "exact") in costs
        assert (key.id,) in requests
        assert {(key.id, "quota_exceeded"), (key.id, "budget_exhausted")} <= refusals.keys()


def test_processes_are_shown(page: Metrics) -> None:
    """Descriptors, memory and CPU time of all processes, by what they are there for."""
    for name in ("open_fds", "max_fds", "resident_memory_bytes", "cpu_seconds_total"):
        table = page.table(name, "process")
        assert set(table) == {(process,) for process in declared.PROCESSES}
        if name == "cpu_seconds_total":
            del table["policy",]  # less than the kernel counts, while the file is unchanged
        assert min(table.values()) > 0, (name, table)
    assert page.value("open_fds") < page.value("max_fds")


def test_connections_and_lag_are_sampled(market: Market, tour: Tour) -> None:
    """Connections on both sides while they are open, and a lag that is measured all the time."""
    assert tour
    gateway = market.gateway
    with market.connect() as client:
        assert client.ask(run_of(WEB, emulate="units=0")).status == 200
        tour.told(200, key=WEB, endpoint=FLUX, billing="paid")
        tour.origin_answers["paid"] += 1
        until(lambda: gateway.metrics().value("client_connections") == 1, "the caller's connection")
        until(lambda: gateway.metrics().value("upstream_connections") >= 1, "the pooled connection to the origin")
    until(lambda: gateway.metrics().value("client_connections") == 0, "the end of the connection")
    beats = gateway.metrics().value("event_loop_lag_seconds_count")
    until(lambda: gateway.metrics().value("event_loop_lag_seconds_count") > beats, "another beat")


# -- formats ----------------------------------------------------------------------------------------------------------


def test_promtool_finds_nothing_to_say(market: Market, tour: Tour) -> None:
    """Names, types, help texts and units are as Prometheus' own linter wants them."""
    assert tour
    text = market.gateway.ask_ops("/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "# {" not in text, "exemplars are no part of this format"


def exemplars_of(gateway: Gateway) -> list[Sample]:
    """Return the samples of the OpenMetrics page that have an exemplar; its strict parser takes the whole of it."""
    text = gateway.ask_ops("/metrics", Accept=OPEN_METRICS).text
    families = parse_open_metrics(text)  # type: ignore[no-untyped-call]
    return [sample for family in families for sample in family.samples if sample.exemplar is not None]


def test_open_metrics_has_exemplars(market: Market, tour: Tour) -> None:
    """Asked for, a bucket names a request that fell into it, when, and with which value."""
    assert tour
    requests = {event["request_id"]: event for event in market.gateway.events("exchange")}
    samples = exemplars_of(market.gateway)
    assert {sample.labels["class"] for sample in samples} == {"paid", "free", "none"}
    for sample in samples:
        assert sample.exemplar is not None
        event = requests[sample.exemplar.labels["request_id"]]
        assert event["class"] == sample.labels["class"]
        told_ms = event["first_byte_ms" if "first_byte" in sample.name else "duration_ms"]
        assert told_ms == pytest.approx(sample.exemplar.value * 1_000, abs=0.01)
        assert sample.exemplar.value <= float(sample.labels["le"])
        assert abs(float(sample.exemplar.timestamp or 0) - time.time()) < 120


def test_an_exemplar_leads_to_the_trace(market: Market, tour: Tour) -> None:
    """A request that is part of a trace is named by that: the last one of a second may come in its place."""
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    traced = run_of(WEB, emulate="units=0", fields=(("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01"),))

    def is_named() -> bool:
        tour.ask(traced, 200, key=WEB, endpoint=FLUX, billing="paid")
        return any(it.exemplar and it.exemplar.labels == {"trace_id": trace_id} for it in exemplars_of(market.gateway))

    until(is_named, "an exemplar with the trace's id")


def test_prometheus_reads_the_open_metrics_page(market: Market, tour: Tour, tmp_path: Path) -> None:
    """Its importer has the parser of its scrapes; it wants a timestamp with each sample, which a scrape brings."""
    assert tour
    text = market.gateway.ask_ops("/metrics", Accept=OPEN_METRICS).text
    stamped = SAMPLE.sub(rf"\1 {int(time.time())}\2", text)
    (tmp_path / "page.om").write_text(stamped, encoding="utf-8")
    done = subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", "page.om", "blocks"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# -- deaths -----------------------------------------------------------------------------------------------------------


def totals_of(page: Metrics) -> dict[tuple[str, Labels], float]:
    """Return every counter, by name and labels."""
    return {
        (family.name, labels): value
        for family in declared.FAMILIES
        if family.kind == "counter" and f"\n{PREFIX}{family.name}" in page.text
        for labels, value in page.table(family.name, *family.labels).items()
    }


def test_a_killed_worker_takes_no_count_along(market: Market, tour: Tour) -> None:
    """No counter falls, not for a moment; what the next ones count comes on top, and its gauges go with it."""
    gateway = market.gateway
    before, ready = gateway.metrics(), gateway.process.family()
    worker = max((member for member in ready[1:] if _listens(member, gateway.port)), key=lambda one: one.pid)
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: gateway.metrics().value("workers", state="ready") == 1, "the death", timeout_seconds=BACK_SECONDS)
    pages = [before]

    def is_back() -> bool:
        pages.append(gateway.metrics())
        return pages[-1].value("workers", state="ready") == 2

    until(is_back, "the worker's successor", timeout_seconds=BACK_SECONDS)
    for earlier, later in itertools.pairwise(pages):
        now = totals_of(later)
        assert {series: value for series, value in totals_of(earlier).items() if now.get(series, -1) < value} == {}
    for _ in range(4):
        tour.ask(run_of(WEB, emulate="units=1"), 200, key=WEB, endpoint=FLUX, billing="paid")
        tour.spend(WEB, "exact", FLUX_NS, units=1)
    after = gateway.metrics()
    for name in ("requests_total", *SINCE_THE_START):
        assert counts(after, name) == dict(tour.counted[name])


def _listens(member: psutil.Process, port: int) -> bool:
    return any(it.status == psutil.CONN_LISTEN and it.laddr.port == port for it in member.net_connections("tcp4"))


def test_a_killed_ops_process_takes_no_count_along(market: Market, tour: Tour) -> None:
    """Its successor reads the same memory, CPU time of workers that are gone included."""
    assert tour
    gateway = market.gateway
    before = totals_of(gateway.metrics())
    with socket.create_connection((LOOPBACK, gateway.ops_port), timeout=BACK_SECONDS) as caller:
        port = caller.getsockname()[1]
        (ops,) = until(lambda: [it for it in gateway.process.family() if _talks(it, port)], "who answers operators")
        os.kill(ops.pid, signal.SIGKILL)
        assert caller.recv(1) == b""
    until(gateway.ready, "the successor", timeout_seconds=BACK_SECONDS)
    now = totals_of(gateway.metrics())
    assert {series: value for series, value in before.items() if now.get(series, -1) < value} == {}


def _talks(member: psutil.Process, port: int) -> bool:
    return any(it.raddr and it.raddr.port == port for it in member.net_connections("tcp4"))


def test_what_was_spent_is_the_ledgers_whoever_dies(market: Market, tour: Tour) -> None:
    """`ledger_cost_usd` is what the database says, also once all processes were killed; counters begin anew."""
    expected = dict(tour.counted["cost_usd_total"])
    total_ns = sum(expected.values())

    def is_shown() -> bool:
        page = market.gateway.metrics()  # has no such series until the ledger was asked, which is every few seconds
        return "ledger_cost_usd{" in page.text and counts(page, "ledger_cost_usd") == expected

    until(is_shown, "the ledger's sums", timeout_seconds=SEEN_SECONDS)
    assert market.books.spent_ns() == total_ns
    market.kill()
    market.revive()
    page = market.gateway.metrics()
    assert counts(page, "ledger_cost_usd") == expected
    assert counts(page, "cost_usd_total") == {}
    market.command("reconcile", "--format", "json", FAL_ADMIN_KEY="admin:key")
    until(
        lambda: "reconciled" in {labels[-1] for labels in counts(market.gateway.metrics(), "ledger_cost_usd")},
        "the bill in the gauge",
        timeout_seconds=SEEN_SECONDS,
    )
    shown = counts(market.gateway.metrics(), "ledger_cost_usd")
    assert sum(shown.values()) == market.books.spent_ns()
    assert ("design", "web", FLUX, "unknown") not in shown  # its answer never came; the bill left over is its own
    assert ("design", "web", FLUX, "exact") not in shown
