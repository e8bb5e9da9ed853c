"""Each exchange is counted once, under bounded labels, whatever became of it."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, get_args

import pytest

from gateway.http.problem import STATUS_AFTER_SEND, STATUS_OF
from gateway.telemetry.log.rendering import LEVEL_OF
from gateway.telemetry.metrics import families as metrics
from gateway.telemetry.metrics.counters import SPARE_CELLS, SPARE_DIRECTORY_BYTES, Region
from gateway.telemetry.metrics.exposition import sum_series
from gateway.telemetry.metrics.initial_series import introduce
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.record import ExchangeRecord, Outcome

if TYPE_CHECKING:
    from gateway.telemetry.metrics.endpoint_labels import EndpointLabels
    from gateway.telemetry.metrics.scoreboard import Scoreboard
    from tests.telemetry.conftest import Fork, Say

MakeRecord = Callable[[], ExchangeRecord]


def _counted(region: Region, family: metrics.Family) -> dict[tuple[str, ...], int]:
    """Return the series of a family of width 1 that are not zero."""
    return {labels: values[0] for labels, values in sum_series([region])[family.name].items() if values[0]}


def test_an_exchange_is_counted_under_its_labels(scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord) -> None:
    """Count and bytes go to team, key, endpoint, class and status."""
    meter.close(record)
    region = scoreboard.workers[0].region
    assert _counted(region, metrics.REQUESTS) == {("design", "web-prod", "fal-ai/flux/dev", "paid", "200"): 1}
    assert _counted(region, metrics.REQUEST_BYTES) == {("design", "paid"): 256}
    assert _counted(region, metrics.RESPONSE_BYTES) == {("design", "paid"): 1024}


def test_closing_twice_counts_once(
    scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord, emitted: list[ExchangeRecord]
) -> None:
    """Exactly one count and one log event for each request, always."""
    meter.open(record)
    meter.close(record)
    meter.close(record)
    assert sum(_counted(scoreboard.workers[0].region, metrics.REQUESTS).values()) == len(emitted) == 1
    assert _counted(scoreboard.workers[0].region, metrics.INFLIGHT_REQUESTS) == {}


def test_in_flight_is_what_is_open(scoreboard: Scoreboard, meter: Meter, make_record: MakeRecord) -> None:
    """The gauge rises at the start and falls at the end, in the class it rose in; a refusal at the door is neither."""
    region, first, second, refused = scoreboard.workers[0].region, make_record(), make_record(), make_record()
    meter.open(first)
    meter.open(second)
    second.billing = "free"
    meter.close(refused)
    assert _counted(region, metrics.INFLIGHT_REQUESTS) == {("paid",): 2}
    meter.close(second)
    assert _counted(region, metrics.INFLIGHT_REQUESTS) == {("paid",): 1}


def test_durations_fall_into_their_buckets(scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord) -> None:
    """A value equal to a bound belongs to it, sums are microseconds, and a time that is not known is no zero."""
    record.duration_seconds, record.first_byte_seconds, record.overhead_seconds = 900.5, 0.0005, None
    meter.close(record)
    sums = sum_series([scoreboard.workers[0].region])
    assert sums["request_duration_seconds"]["paid",] == [*[0] * 16, 1, 900_500_000]
    assert sums["first_byte_seconds"]["paid",] == [1, *[0] * 16, 500]
    assert sums["overhead_seconds"]["paid",] == [0] * 18


@pytest.mark.parametrize(
    ("outcome", "error_type", "refusals", "failures", "gone"),
    [
        ("ok", None, {}, {}, {}),
        ("refused", "target_invalid", {("design", "web-prod", "target_invalid"): 1}, {}, {}),
        ("origin_failed", "origin_timeout", {}, {("origin_timeout",): 1}, {}),
        ("cut", "origin_failed", {}, {("origin_failed",): 1}, {}),
        ("cut", "client_timeout", {}, {}, {}),
        ("client_gone", None, {}, {}, {(): 1}),
        ("client_gone", "origin_failed", {}, {("origin_failed",): 1}, {(): 1}),
        ("gateway_failed", "gateway_error", {}, {}, {}),
    ],
)
def test_a_fault_is_counted_where_it_belongs(  # noqa: PLR0913 - a table with one column for each family
    scoreboard: Scoreboard,
    meter: Meter,
    record: ExchangeRecord,
    *,
    outcome: Outcome,
    error_type: str | None,
    refusals: dict[tuple[str, ...], int],
    failures: dict[tuple[str, ...], int],
    gone: dict[tuple[str, ...], int],
) -> None:
    """A refusal is ours, a failure the origin's, and a client that leaves is neither."""
    record.outcome, record.error_type = outcome, error_type
    meter.close(record)
    region = scoreboard.workers[0].region
    assert _counted(region, metrics.REFUSALS) == refusals
    assert _counted(region, metrics.UPSTREAM_FAILURES) == failures
    assert _counted(region, metrics.CLIENTS_GONE) == gone


@pytest.mark.parametrize(
    ("outcome", "billing", "cost", "abandoned"),
    [
        ("client_gone", "paid", Decimal("0.000000001"), 1),
        ("client_gone", "paid", Decimal("12.5"), 12_500_000_000),
        ("client_gone", "paid", None, 0),
        ("client_gone", "free", Decimal("12.5"), 0),
        ("cut", "paid", Decimal("12.5"), 0),
        ("ok", "paid", Decimal("12.5"), 0),
    ],
)
def test_what_a_client_leaves_behind_is_counted(  # noqa: PLR0913 - a table with one column for each part
    scoreboard: Scoreboard,
    meter: Meter,
    record: ExchangeRecord,
    *,
    outcome: Outcome,
    billing: str,
    cost: Decimal | None,
    abandoned: int,
) -> None:
    """What a paid request cost whose client had left; the result of a job that cost something can be fetched again."""
    record.outcome, record.billing, record.cost_usd = outcome, billing, cost
    meter.close(record)
    counted = _counted(scoreboard.workers[0].region, metrics.ABANDONED_COST)
    assert counted == ({("design", "web-prod"): abandoned} if abandoned else {})


def test_what_was_never_known_is_said_so(scoreboard: Scoreboard, meter: Meter, emitted: list[ExchangeRecord]) -> None:
    """A client that left before anything was known: 499, key and team unknown, endpoint and class none."""
    meter.close(ExchangeRecord("id", "GET"))
    assert _counted(scoreboard.workers[0].region, metrics.REQUESTS) == {
        ("unknown", "unknown", "none", "none", "499"): 1
    }
    assert emitted[0].timestamp == 1_798_804_800.25


@pytest.mark.parametrize(("status", "label"), [(100, "100"), (599, "599"), (600, "other"), (0, "other"), (-1, "other")])
def test_status_labels_are_a_closed_set(
    scoreboard: Scoreboard, meter: Meter, record: ExchangeRecord, *, status: int, label: str
) -> None:
    """An origin that invents statuses cannot make series."""
    record.status = status
    meter.close(record)
    assert [labels[-1] for labels in _counted(scoreboard.workers[0].region, metrics.REQUESTS)] == [label]


def test_ten_thousand_odd_endpoints_are_bounded(scoreboard: Scoreboard, meter: Meter, make_record: MakeRecord) -> None:
    """Every request is counted, and no more than the first fifty endpoints are named."""
    for number in range(10_000):
        record = make_record()
        record.endpoint = f'odd"\n\\{number}'
        meter.close(record)
    counted = _counted(scoreboard.workers[0].region, metrics.REQUESTS)
    assert (len(counted), sum(counted.values())) == (51, 10_000)
    assert counted["design", "web-prod", "other", "paid", "200"] == 9_950
    assert len(meter._rows) == 51


def test_a_full_region_counts_under_other(labels: EndpointLabels, make_record: MakeRecord) -> None:
    """Where keys are more than the memory has room for, the rest is summed as `other`, with class and status kept."""
    region = Region(cells=SPARE_CELLS + 300, directory_bytes=2 << 20)
    meter = Meter(region, labels, emit=lambda _record: None)
    for number in range(1_000):
        record = make_record()
        record.key, record.status, record.outcome, record.error_type = (
            f"k{number}",
            403,
            "refused",
            "endpoint_not_allowed",
        )
        meter.close(record)
    counted = _counted(region, metrics.REQUESTS)
    assert sum(counted.values()) == 1_000
    assert counted["other", "other", "other", "paid", "403"] > 800
    assert _counted(region, metrics.REFUSALS)["other", "other", "endpoint_not_allowed"] > 800
    assert len(meter._rows) < 300
    region.close()


def test_the_spare_part_has_room_for_every_overflow_series() -> None:
    """All closed label values of all families, with the longest names there are, fit into what is kept back."""
    errors = (*STATUS_OF, *STATUS_AFTER_SEND)
    statuses = (*map(str, range(100, 600)), "other")
    closed = {"class": metrics.CLASSES, "status": statuses, "error_type": errors, "state": ("stopped",)}
    series = [
        (family, labels)
        for family in metrics.COUNTED
        for labels in itertools.product(*(closed.get(name, ("other",)) for name in family.labels))
    ]
    region = Region(cells=SPARE_CELLS, directory_bytes=SPARE_DIRECTORY_BYTES)
    for family, labels in series:
        assert region.claim(family.name, labels, width=family.width) is None
        region.claim_spare(family.name, labels, width=family.width)
    assert len(region.series()) == len(series) > 1_500
    region.close()


def test_a_killed_worker_loses_no_count(scoreboard: Scoreboard, fork: Fork, make_record: MakeRecord) -> None:
    """After a SIGKILL with one exchange open, its successor counts on, and nothing is in flight."""

    def work(say: Say) -> None:
        meter = Meter(scoreboard.workers[0].region, scoreboard.endpoints, emit=lambda _record: None)
        for _ in range(100):
            meter.close(make_record())
        meter.open(make_record())
        say(b"counted")
        signal.pause()

    child = fork(work)
    assert child.heard() == b"counted"
    region = scoreboard.workers[0].region
    assert _counted(region, metrics.INFLIGHT_REQUESTS) == {("paid",): 1}
    child.kill()
    assert child.exit_status() == -signal.SIGKILL
    Meter(region, scoreboard.endpoints, emit=lambda _record: None).close(make_record())
    assert list(_counted(region, metrics.REQUESTS).values()) == [101]
    assert _counted(region, metrics.INFLIGHT_REQUESTS) == {}


def test_workers_are_summed(scoreboard: Scoreboard, fork: Fork, make_record: MakeRecord) -> None:
    """Two processes that count at the same time make one sum, exact to the last request."""

    def work(number: int) -> None:
        meter = Meter(scoreboard.workers[number].region, scoreboard.endpoints, emit=lambda _record: None)
        for _ in range(500):
            meter.close(make_record())

    children = [fork(lambda _say, number=number: work(number)) for number in (0, 1)]  # type: ignore[misc]
    assert [child.exit_status() for child in children] == [0, 0]
    sums = sum_series(slot.region for slot in scoreboard.slots)
    assert sums["requests_total"] == {("design", "web-prod", "fal-ai/flux/dev", "paid", "200"): [1_000]}
    assert sums["request_duration_seconds"]["paid",][-1] == 1_500_000_000


def test_configured_names_start_at_zero(scoreboard: Scoreboard, meter: Meter) -> None:  # noqa: ARG001 (it claims what is its own)
    """`increase()` sees the first request and the first refusal of every key."""
    introduce(scoreboard.workers[0].region, [("design", "web"), ("design", "ci")], endpoints=["fal-ai/flux/dev"])
    sums = sum_series([scoreboard.workers[0].region])
    assert sums["requests_total"] == {("design", key, "fal-ai/flux/dev", "paid", "200"): [0] for key in ("web", "ci")}
    assert sums["refusals_total"] == {
        ("design", key, error): [0] for key in ("web", "ci") for error in ("quota_exceeded", "budget_exhausted")
    }
    assert sums["clients_gone_total"] == {(): [0]}
    assert sums["upstream_failures_total"] == {(error,): [0] for error in metrics.ORIGIN_ERRORS}
    assert sums["upstream_refusals_total"] == {(reason,): [0] for reason in metrics.UPSTREAM_REFUSALS_OF}
    assert sums["abandoned_cost_usd_total"] == {("design", key): [0] for key in ("web", "ci")}


def test_the_tables_agree() -> None:
    """Every outcome has a level, and every origin error a status."""
    assert set(LEVEL_OF) == set(get_args(Outcome))
    assert set(metrics.ORIGIN_ERRORS) <= {*STATUS_OF, *STATUS_AFTER_SEND}
    assert len(metrics.DURATION_BUCKETS) <= 16
    assert list(metrics.DURATION_BUCKETS) == sorted(metrics.DURATION_BUCKETS)


def test_a_counter_ends_where_its_cell_does(scoreboard: Scoreboard, meter: Meter) -> None:
    """Sums of garbled figures, each within its bound, do not stop the worker that adds them up."""
    account = meter.account("design", "web", "a/b", "image")
    for _ in range(10_000):
        account.count(Decimal(10**9), 10**15, "exact")
    for family in (metrics.COST, metrics.UNITS):
        assert list(_counted(scoreboard.workers[0].region, family).values()) == [2**63 - 1]
