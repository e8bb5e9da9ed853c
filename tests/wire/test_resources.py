"""What runs out: descriptors, and a reader of the log. Callers under way must not notice."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from tests.harness.gateway import Gateway
from tests.harness.messages import proxy_request
from tests.harness.policy import policy_text
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.client import RawClient
    from tests.harness.origin import StartOrigin
    from tests.harness.policy import GatewayKey

DESCRIPTORS: Final = 160
CALLERS: Final = 48
"""How many callers such a worker takes: half of what is left beside 64 of its own."""

WAITING: Final = 20
NOTICED_SECONDS: Final = 5.0
"""What callers wait at most for room, on a machine with other things to do; a silent head may take 15 s."""

STRANGERS: Final = 300
BATCH: Final = 100
LINES: Final = 14_000
"""More than the log's queue (10,000) and a pipe (64 KiB) hold."""

RUN: Final = "import sys; from gateway.cli.main import main; sys.exit(main())"
FEW_DESCRIPTORS: Final = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS},) * 2); {RUN}"
NOBODY_READS_THE_LOG: Final = f"import os; reader, writer = os.pipe(); os.dup2(writer, 2); {RUN}"


@pytest.fixture
def start_program(tmp_path: Path, start_origin: StartOrigin, key: GatewayKey) -> Iterator[Callable[[str], Gateway]]:
    """Return `start(code)`: a gateway that a line of Python has prepared the process for."""
    with ExitStack() as stack:

        def start(code: str) -> Gateway:
            settings = {"FALGW_ORIGIN_OVERRIDES": start_origin().overrides}
            started = Gateway(tmp_path, policy=policy_text(key), env=settings, program=("-c", code))
            return stack.enter_context(started).wait_ready()

        yield start


def worker_of(gateway: Gateway) -> psutil.Process:
    """Return the one process that listens on the data port."""
    return next(
        process
        for process in gateway.process.family()
        if any(
            connection.laddr.port == gateway.port and connection.status == psutil.CONN_LISTEN
            for connection in process.net_connections("tcp")
        )
    )


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def test_a_log_that_nobody_reads_is_not_noticed(start_program: Callable[[str], Gateway], key: GatewayKey) -> None:
    """With a stalled log pipe every request is answered, and the lines that found no room are counted."""
    gateway = start_program(NOBODY_READS_THE_LOG)
    refused = proxy_request("https://fal.run/../", key=key)  # of a known key: strangers' lines are sampled
    with gateway.connect() as client:
        for _ in range(LINES // BATCH):
            client.send(refused * BATCH)
            assert [client.read_response().status for _ in range(BATCH)] == [412] * BATCH
        assert client.ask(proxy_request(key=key)).status == 200
    until(lambda: gateway.metrics().value("requests_total") == LINES + 1, "each request to be counted, the last too")
    until(lambda: gateway.metrics().value("log_lines_dropped_total") > 0, "dropped lines to be counted")


@pytest.mark.parametrize(
    "said",
    [b"", b"POST /api/fal/proxy HTTP/1.1\r\nHost: x\r\n", proxy_request()],
    ids=["nothing", "half a head", "no key"],
)
def test_strangers_at_the_cap_keep_no_one_out(
    start_program: Callable[[str], Gateway], key: GatewayKey, *, said: bytes
) -> None:
    """Hundreds that connect and wait are closed for callers to come, the oldest first; one with a request stays."""
    gateway = start_program(FEW_DESCRIPTORS)
    with ExitStack() as stack:
        slow = stack.enter_context(gateway.connect())
        request = proxy_request(key=key, body=b"x" * 100_000)
        slow.send(request[:-1])
        until(lambda: gateway.metrics().value("inflight_requests") == 1, "the request under way")
        strangers: list[RawClient] = [stack.enter_context(gateway.connect()) for _ in range(STRANGERS)]
        for stranger in strangers:
            stranger.send(said)
        began = time.monotonic()
        for _ in range(3):
            with gateway.connect() as client:
                assert client.ask(proxy_request(key=key)).status == 200
        assert time.monotonic() - began < NOTICED_SECONDS
        slow.send(request[-1:])
        assert slow.read_response().status == 200
    event = gateway.wait_for_event("connections_limited")
    assert (event["limit"], event["refused"]) == (CALLERS, 0)  # loopback is not counted
    until(
        lambda: sum(event["closed"] for event in gateway.events("connections_limited")) >= STRANGERS - CALLERS,
        "all that were closed to be told",
    )


def test_callers_beyond_the_descriptors_wait_and_cost_nothing(
    start_program: Callable[[str], Gateway], key: GatewayKey
) -> None:
    """Beyond the cap new callers wait in the kernel's queue, open ones go on, and no core burns."""
    gateway = start_program(FEW_DESCRIPTORS)
    request = proxy_request(key=key)
    worker = worker_of(gateway)
    with ExitStack() as stack:
        served: list[RawClient] = [stack.enter_context(gateway.connect()) for _ in range(CALLERS)]
        assert [client.ask(request).status for client in served] == [200] * CALLERS
        waiting = [stack.enter_context(gateway.connect()) for _ in range(WAITING)]
        for client in waiting:
            client.send(request)
        before = cpu_seconds(worker)
        waiting[-1].socket.settimeout(1.0)  # the second over which the cost is measured
        with pytest.raises(TimeoutError):
            waiting[-1].read_response()
        assert cpu_seconds(worker) - before < 0.05
        assert [client.ask(request).status for client in served] == [200] * CALLERS
        for client in served[: 2 * WAITING]:
            client.close()
        for client in waiting:
            client.socket.settimeout(10.0)
            assert client.read_response().status == 200
