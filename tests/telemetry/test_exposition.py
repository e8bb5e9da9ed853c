"""The metrics page: what Prometheus reads is what was counted, under the names that dashboards rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics

from gateway.telemetry.metrics.exemplars import Exemplar
from gateway.telemetry.metrics.exposition import expose
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.metrics.scoreboard import Scoreboard, State
from gateway.version import VERSION

if TYPE_CHECKING:
    from prometheus_client import Metric

    from gateway.telemetry.record import ExchangeRecord

FAMILIES = {
    "requests": "counter",
    "request_duration_seconds": "histogram",
    "first_byte_seconds": "histogram",
    "overhead_seconds": "histogram",
    "request_bytes": "counter",
    "response_bytes": "counter",
    "inflight_requests": "gauge",
    "refusals": "counter",
    "upstream_failures": "counter",
    "clients_gone": "counter",
    "log_lines_dropped": "counter",
    "trace_spans_dropped": "counter",
    "shadow_refusals": "counter",
    "degraded_requests": "counter",
    "policy_reload_errors": "counter",
    "process_restarts": "counter",
    "policy_generation": "gauge",
    "workers": "gauge",
    "build_info": "gauge",
    "cost_usd": "counter",
    "billable_units": "counter",
    "unpriced_requests": "counter",
    "budget_limit_usd": "gauge",
    "budget_spent_usd": "gauge",
    "budget_reserved_usd": "gauge",
    "budget_warnings": "counter",
    "billing_drift_usd": "gauge",
    "ledger_lost_purchases": "counter",
    "state_store_up": "gauge",
    "state_store_errors": "counter",
    "replicas": "gauge",
    "ledger_cost_usd": "gauge",
    "abandoned_cost_usd": "counter",
    "upstream_refusals": "counter",
    "event_loop_lag_seconds": "histogram",
    "upstream_connections": "gauge",
    "client_connections": "gauge",
    "inflight_limit": "gauge",
}


def _scrape(scoreboard: Scoreboard) -> dict[str, Metric]:
    page, content_type = expose(scoreboard, "")
    assert content_type.startswith("text/plain; version=0.0.4")
    return {metric.name: metric for metric in parser.text_string_to_metric_families(page.decode())}


def _value(scoreboard: Scoreboard, name: str, **labels: str) -> float:
    samples = [sample for metric in _scrape(scoreboard).values() for sample in metric.samples]
    (found,) = (s.value for s in samples if s.name == f"fal_gateway_{name}" and s.labels == labels)
    return found


def test_every_family_is_there_from_the_start(scoreboard: Scoreboard) -> None:
    """Names and types do not depend on what has happened, nor on a worker having come up."""
    assert {name.removeprefix("fal_gateway_"): m.type for name, m in _scrape(scoreboard).items()} == FAMILIES


def test_counts_reach_the_page(scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord) -> None:
    """A request shows with its labels under its name in docs/metrics.md."""
    meter.close(record)
    labels = {"team": "design", "key": "web-prod", "endpoint": "fal-ai/flux/dev", "class": "paid", "status": "200"}
    assert _value(scoreboard, "requests_total", **labels) == 1
    assert _value(scoreboard, "response_bytes_total", team="design", **{"class": "paid"}) == 1024


def test_histograms_are_cumulative_and_in_seconds(scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord) -> None:
    """Each bucket holds all below it, the last one equals the count, and the sum is in seconds."""
    meter.close(record)
    name, paid = "request_duration_seconds", {"class": "paid"}
    buckets = [
        s
        for s in _scrape(scoreboard)[f"fal_gateway_{name}"].samples
        if s.labels.get("le") and s.labels["class"] == "paid"
    ]
    assert [(s.labels["le"], s.value) for s in buckets if s.labels["le"] in {"1.0", "2.0", "900.0", "+Inf"}] == [
        ("1.0", 0),
        ("2.0", 1),
        ("900.0", 1),
        ("+Inf", 1),
    ]
    assert (_value(scoreboard, f"{name}_count", **paid), _value(scoreboard, f"{name}_sum", **paid)) == (1, 1.5)


def test_processes_are_told(scoreboard: Scoreboard) -> None:
    """Workers by state, the generation that all have reached, and the release."""
    first, second = scoreboard.workers
    first.state, first.generation, second.state = State.READY, 2, State.STOPPED
    assert [_value(scoreboard, "workers", state=name) for name in ("starting", "ready", "draining", "stopped")] == [
        0,
        1,
        0,
        1,
    ]
    assert _value(scoreboard, "policy_generation") == 2
    assert _value(scoreboard, "build_info", version=VERSION) == 1


def test_open_metrics_where_it_is_asked_for(scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord) -> None:
    """An Accept field as Prometheus sends it gets OpenMetrics, which its strict parser takes."""
    meter.close(record)
    accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"
    page, content_type = expose(scoreboard, accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    found = parse_open_metrics(page.decode())  # type: ignore[no-untyped-call]
    assert {metric.name.removeprefix("fal_gateway_") for metric in found} == set(FAMILIES)


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=x", "text/plain;version=", ";;,,=", "\u00e9", "*/*"]
)
def test_an_odd_accept_field_gets_the_plain_page(scoreboard: Scoreboard, accept: str) -> None:
    """Whatever is asked for, the answer is a page that parses."""
    page, content_type = expose(scoreboard, accept)
    assert content_type.startswith("text/plain")
    assert list(parser.text_string_to_metric_families(page.decode()))


def test_labels_are_escaped(scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord) -> None:
    """Quotes, backslashes and line ends in an endpoint do not break the page."""
    record.endpoint = 'a"b\\c\nd'
    meter.close(record)
    samples = _scrape(scoreboard)["fal_gateway_requests"].samples
    assert [s.labels["endpoint"] for s in samples if s.value] == ['a"b\\c\nd']


def test_dropped_lines_of_all_processes_are_summed(scoreboard: Scoreboard, meter: Meter) -> None:
    """The ops process and the supervisor log too; their losses are in the same sum."""
    meter.count_dropped(2)
    for slot in (scoreboard.ops, scoreboard.supervisor):
        type(meter)(slot.region, scoreboard.endpoints, emit=lambda _record: None).count_dropped(1)
    assert _value(scoreboard, "log_lines_dropped_total") == 4


def test_the_newest_exemplar_of_all_workers_is_shown(scoreboard: Scoreboard) -> None:
    """Each worker has its own; a bucket on the page has one."""
    for slot, at in zip(scoreboard.workers, (2_000.0, 1_000.0), strict=True):
        Meter(slot.region, scoreboard.endpoints, emit=lambda _record: None)
        slot.region.exemplars.keep(9, Exemplar(at, 1.5, is_traced=False, id=f"{at:032.0f}"))
    page, _ = expose(scoreboard, "application/openmetrics-text;version=1.0.0")
    lines = [line for line in page.decode().splitlines() if " # {" in line]
    bucket = 'fal_gateway_request_duration_seconds_bucket{class="paid",le="2.0"}'
    assert lines == [f'{bucket} 0.0 # {{request_id="{2_000:032}"}} 1.5 2000.0']
