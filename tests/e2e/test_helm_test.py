"""`helm test` proves function: its pods, run as rendered, end well beside a gateway that works, and only there."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Final

import pytest

from tests.chart.helm import needs_helm
from tests.e2e.release import Release
from tests.harness.gateway import Metrics
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_helm

TESTS: Final = {
    "ready": ("ready: {", "http://gw-fal-gateway-ops.media:9090/readyz"),
    "metrics": (" families, ", "http://gw-fal-gateway-ops.media:9090/metrics"),
    "stream": ("5 events within ", "http://gw-fal-gateway.media:80"),
}
"""What each pod prints where all is well, and what it names where nobody answers."""

LONG: Final = "events=100,pace=300"


@pytest.fixture(scope="module")
def release(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """Run the trial, for tests that leave it as it is."""
    with Release(tmp_path_factory.mktemp(image.rpartition("/")[2])) as running:
        yield running


@pytest.fixture
def own_release(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """Run a trial of the test's own."""
    with Release(tmp_path_factory.mktemp(image.rpartition("/")[2])) as running:
        yield running


@pytest.mark.parametrize("name", TESTS)
def test_it_proves_what_was_installed(name: str, release: Release) -> None:
    """Each pod ends with 0, within the memory, the user and the privileges that it is given."""
    ended = release.start_test(name).wait()
    assert ended.code == 0, ended
    assert TESTS[name][0] in ended.output


@pytest.mark.parametrize("kind", ["startup", "readiness", "liveness"])
def test_the_probes_are_answered(kind: str, release: Release) -> None:
    """Each within the time that it has."""
    assert release.probe(kind) == http.client.OK


def test_a_gateway_that_drains_is_not_ready_and_lives_until_its_stream_has_ended(own_release: Release) -> None:
    """`helm test` says that it is not ready, no probe has it killed, and the open stream arrives whole."""
    stream = own_release.start_test("stream", EMULATE=LONG)
    until(lambda: inflight(own_release) == 1, "the stream to be open", timeout_seconds=30)
    own_release.end_gateway()
    until(
        lambda: own_release.probe("readiness") == http.client.SERVICE_UNAVAILABLE,
        "readiness to go",
        timeout_seconds=15,
    )
    denied = own_release.start_test("ready").wait()
    assert own_release.probe("liveness") == http.client.OK
    assert denied.code != 0
    assert "unexpected: (503, " in denied.errors
    ended = stream.wait()
    assert (ended.code, ended.output[:12]) == (0, "100 events w"), ended
    assert own_release.wait_for_the_end() == 0


def inflight(release: Release) -> float:
    """Return how many exchanges are under way."""
    return Metrics(release.ask("ops", "/metrics")[1]).value("inflight_requests")


def test_it_denies_a_gateway_that_has_ended(own_release: Release) -> None:
    """Each pod is patient for a minute, fails, and says whom it could not reach."""
    own_release.end_gateway()
    assert own_release.wait_for_the_end() == 0
    running = {name: own_release.start_test(name) for name in TESTS}
    for name, pod in running.items():
        ended = pod.wait()
        assert ended.code != 0, ended
        assert ended.errors.splitlines()[-1].startswith(f"{TESTS[name][1]}: "), ended
        assert "Connection refused" in ended.errors
