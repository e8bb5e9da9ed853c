"""Strangers' refusals are sampled in the log: the first hundred a second, and how many more there were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from structlog.testing import capture_logs

from gateway.telemetry.log.refusal_sampler import LOGGED_A_SECOND, RefusalSampler
from gateway.telemetry.record import ANONYMOUS, UNKNOWN, ExchangeRecord
from tests.harness.messages import proxy_request
from tests.harness.scene import totals
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.telemetry.record import Outcome
    from tests.harness.scene import Scene

FLOOD: Final = 250
SECOND: Final = 1_800_000_000


def record(*, key: str = UNKNOWN, outcome: Outcome = "refused", at: float = SECOND) -> ExchangeRecord:
    """Return a closed record."""
    made = ExchangeRecord("id", "POST")
    made.key, made.outcome, made.timestamp, made.error_type = key, outcome, at, "credential_missing"
    return made


@pytest.fixture
def emitted() -> list[ExchangeRecord]:
    """Return what was passed on."""
    return []


@pytest.fixture
def sampler(emitted: list[ExchangeRecord]) -> RefusalSampler:
    """Return a sampler that passes on to `emitted`."""
    return RefusalSampler(emitted.append)


def test_the_first_hundred_of_each_second_are_logged(sampler: RefusalSampler, emitted: list[ExchangeRecord]) -> None:
    """What is more is told once, by its type, and not again."""
    for at in (SECOND, SECOND + 0.9, SECOND + 1):
        for _ in range(FLOOD):
            sampler.emit(record(at=at))
    assert [event.timestamp for event in emitted] == [SECOND] * LOGGED_A_SECOND + [SECOND + 1] * LOGGED_A_SECOND
    with capture_logs() as events:
        sampler.summarize()
        sampler.summarize()
    count = 3 * FLOOD - 2 * LOGGED_A_SECOND
    summary = {"event": "refusals_sampled", "log_level": "info", "count": count}
    assert events == [{**summary, "error_types": {"credential_missing": count}}]


@pytest.mark.parametrize(("key", "outcome"), [("web-prod", "refused"), (ANONYMOUS, "ok"), (ANONYMOUS, "client_gone")])
def test_what_callers_do_that_may_call_is_always_logged(
    sampler: RefusalSampler, emitted: list[ExchangeRecord], *, key: str, outcome: Outcome
) -> None:
    """Sampled are strangers only: with an unknown key, or anonymous and refused."""
    for _ in range(FLOOD):
        sampler.emit(record(key=key, outcome=outcome))
    assert len(emitted) == FLOOD


def test_refused_anonymous_callers_are_sampled(sampler: RefusalSampler, emitted: list[ExchangeRecord]) -> None:
    """A flood of them needs no key either."""
    for _ in range(FLOOD):
        sampler.emit(record(key=ANONYMOUS))
    assert len(emitted) == LOGGED_A_SECOND


STRANGERS: Final = {
    "no key": (proxy_request(), 401),
    "elsewhere": (proxy_request(path="/elsewhere"), 404),
    "preflight": (proxy_request(method="OPTIONS"), 204),
    "method": (proxy_request(method="PATCH"), 405),
    "no request": (b"BAD\r\n\r\n", 400),
    "large head": (proxy_request(fields=[("X-Long", "x" * 20_000)]), 431),
}
CLOSING: Final = (400, 431)


@pytest.fixture(scope="module")
def flooded(build_scene: Callable[..., Scene]) -> Scene:
    """Return a scene for all floods."""
    return build_scene()


@pytest.mark.parametrize("flood", STRANGERS.values(), ids=list(STRANGERS))
def test_a_flood_of_strangers_writes_little(flooded: Scene, flood: tuple[bytes, int]) -> None:
    """Whatever they are refused for: a hundred lines a second, the rest in sums; nothing is left out of them."""
    request, status = flood
    at_once = 1 if status in CLOSING else FLOOD
    gateway = flooded.gateway
    before = gateway.metrics()

    def lines() -> list[dict[str, Any]]:
        found = gateway.events("exchange")
        return [event for event in found if (event["key"], event["status"]) == ("unknown", status)]

    def sampled() -> int:
        return sum(sum(event["error_types"].values()) for event in gateway.events("refusals_sampled"))

    sampled_before = sampled()
    for _ in range(2 * FLOOD // at_once):
        with gateway.connect() as client:
            client.send(request * at_once)
            assert {client.read_response().status for _ in range(at_once)} == {status}
    until(lambda: len(lines()) + sampled() - sampled_before == 2 * FLOOD, "every request in the log, or in its sums")
    assert len(lines()) <= len({event["timestamp"][:19] for event in lines()}) * LOGGED_A_SECOND
    if status != 404:  # which is no request to the proxy
        grown = totals(gateway.metrics())
        grown.subtract(totals(before))
        assert grown["status", str(status)] == 2 * FLOOD
    assert flooded.ask(flooded.request()).status == 200
