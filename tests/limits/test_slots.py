"""Limits on what is under way at once: as many as the quota, freed however an exchange ends, none ever lost."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response, proxy_request
from tests.harness.origin import overrides_to
from tests.harness.ports import refused_port
from tests.harness.scene import JSON_TYPE
from tests.harness.waiting import until
from tests.limits.endings import ENDINGS, IDLE_SECONDS, MOST_BYTES, PLAY, STALLED, play
from tests.limits.ground import left, limited, limits_policy, slots, told
from tests.wire.stage import assert_problem
from tests.wire.test_workers import server_of, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.client import RawClient, Response
    from tests.harness.gateway import Gateway, Metrics, StartGateway
    from tests.harness.origin import OriginConnection, StartOrigin
    from tests.harness.policy import GatewayKey
    from tests.harness.scene import Scene

AT_ONCE: Final = 4
CALLERS: Final = 8
ROUNDS: Final = 400
"""Of all endings, in the test of leaks: six thousand exchanges."""

ONE: Final = limited("one", slots(quota=1))
FEW: Final = limited("few", slots(quota=AT_ONCE))
MANY: Final = limited("many", slots(quota=CALLERS))
LOTS_SLOTS: Final = 32 * CALLERS  # a caller that closes its side is taken for gone some tenths of a second later
LOTS: Final = limited("lots", slots(quota=LOTS_SLOTS))


@pytest.fixture(scope="module")
def ground(lay_out: Callable[..., Scene]) -> Scene:
    """Return the module's scene; content is bounded."""
    return lay_out(ONE, limits_policy([ONE, FEW, LOTS]), FALGW_MAX_BODY_BYTES=str(MOST_BYTES))


@pytest.fixture
def scene(ground: Scene) -> Scene:
    """Return the module's scene with new books, its origin playing what it is asked for."""
    ground.play(play)
    return ground.open_books()


class Stuck:
    """An origin's script: what is asked for as stuck is answered when it is let go, all else at once."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def __call__(self, connection: OriginConnection) -> None:
        """Answer."""
        while (request := connection.read_request()) is not None:
            if b"stuck" in (request.body, request.head.value(PLAY.encode())):
                assert self.let_go.wait(30)
            connection.send(http_response(b"{}", fields=[JSON_TYPE, ("x-fal-billable-units", "1")]))


@contextmanager
def stuck() -> Iterator[Stuck]:
    """Run a block with such a script; in the end all of its answers are let go."""
    script = Stuck()
    try:
        yield script
    finally:
        script.let_go.set()


def begin(client: RawClient, key: GatewayKey) -> None:
    """Send a request whose answer does not come by itself."""
    client.send(proxy_request(key=key, body=b"stuck"))


def ask(gateway: Gateway, key: GatewayKey) -> Response:
    """Ask once, on a connection of its own."""
    with gateway.connect() as client:
        return client.ask(proxy_request(key=key))


def is_free(gateway: Gateway, key: GatewayKey) -> bool:
    """Say whether a call is granted now; one that is not takes nothing."""
    return ask(gateway, key).status == 200


# -- as many as the quota ---------------------------------------------------------------------------------------------


def test_so_many_at_once_and_no_more(scene: Scene) -> None:
    """Beyond the quota a call is 429; each answer that ends lets one more in."""
    with stuck() as script, ExitStack() as stack:
        scene.play(script)
        clients = [stack.enter_context(scene.connect()) for _ in range(AT_ONCE)]
        for number, client in enumerate(clients, start=1):
            begin(client, FEW)
            scene.origin.wait_for_requests(number)
        refused = ask(scene.gateway, FEW)
        assert_problem(refused, 429, "quota_exceeded")
        assert (refused.field("retry-after"), told(refused)) == ("1", {"parallel": {"r": 0, "t": 1}})
        script.let_go.set()
        answers = [client.read_response() for client in clients]
        assert [left(answer, "parallel") for answer in answers] == [3, 2, 1, 0]
        assert is_free(scene.gateway, FEW)


def test_a_slot_is_held_to_the_last_byte_of_the_answer(scene: Scene) -> None:
    """A caller who has the head and not yet the end of its answer still holds its slot."""
    go_on = threading.Event()

    def script(connection: OriginConnection) -> None:
        whole = http_response(b"x" * 1000, fields=[("Content-Type", "image/png")])
        while connection.read_request() is not None:
            connection.send(whole[:-1])
            assert go_on.wait(30)
            connection.send(whole[-1:])

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.request())
        head = client.read_head()
        assert ask(scene.gateway, ONE).status == 429
        go_on.set()
        assert len(b"".join(client.pieces(head))) == 1000
    assert is_free(scene.gateway, ONE)


def test_workers_share_their_slots(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """With several workers there are as many slots as with one; a worker that is killed gives its own back."""
    with stuck() as script, ExitStack() as stack:
        gateway = start_gateway(start_origin(script), policy=limits_policy([MANY]), workers=3)
        workers = workers_of(gateway)
        clients = [stack.enter_context(gateway.connect()) for _ in range(40)]
        for client in clients:
            begin(client, MANY)
        until(lambda: gateway.metrics().value("refusals_total", error_type="quota_exceeded") == 32, "the refusals")
        assert gateway.metrics().value("inflight_requests") == CALLERS
        os.kill(server_of(clients[0], workers), signal.SIGKILL)
        script.let_go.set()
        until(lambda: len(workers_of(gateway)) == 3, "three workers again", timeout_seconds=15)
        until(lambda: gateway.metrics().value("inflight_requests") == 0, "all to be over")
        assert exactly_fit(gateway, CALLERS, key=MANY)


def exactly_fit(gateway: Gateway, count: int, *, key: GatewayKey) -> bool:
    """Check that so many calls fit at once, and not one more: by content that is not sent to its end."""
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(count + 1)]
        for client in clients[:-1]:
            client.send(proxy_request(key=key, body=b"x" * 1000, fields=[("Expect", "100-continue")])[:-1000])
            assert client.reader.through(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        return clients[-1].ask(proxy_request(key=key)).status == 429


# -- however it ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ENDINGS if name != STALLED])
def test_a_slot_is_free_when_its_exchange_has_ended(scene: Scene, name: str) -> None:
    """However it ended, its slot is there for the next one."""
    until(lambda: is_free(scene.gateway, ONE), "the slot, whatever was before")
    ENDINGS[name](scene, ONE)
    until(lambda: is_free(scene.gateway, ONE), f"the slot after {name}", timeout_seconds=5)


def test_a_slot_is_free_when_a_stalled_origin_is_given_up(lay_out: Callable[..., Scene]) -> None:
    """As soon as its time is over."""
    impatient = lay_out(ONE, limits_policy([ONE]), FALGW_FIRST_BYTE_TIMEOUT=str(IDLE_SECONDS))
    impatient.play(play)
    ENDINGS[STALLED](impatient, ONE)
    until(lambda: is_free(impatient.gateway, ONE), "the slot after the origin's time")
    impatient.gateway.wait_for_event("exchange", lambda event: event["error_type"] == "origin_timeout")


def test_no_slot_leaks(scene: Scene) -> None:
    """After thousands of exchanges that ended in every way, none of them refused, all slots are there again."""
    names = [name for name in ENDINGS if name != STALLED] * ROUNDS
    with ThreadPoolExecutor(CALLERS) as pool:
        for ended in [pool.submit(ENDINGS[name], scene, LOTS) for name in names]:
            ended.result()
    metrics = until(lambda: metrics_at_rest(scene.gateway), "all to be over")
    assert metrics.value("refusals_total", key="lots", error_type="quota_exceeded") == 0
    assert exactly_fit(scene.gateway, LOTS_SLOTS, key=LOTS)


def metrics_at_rest(gateway: Gateway) -> Metrics | None:
    """Return the metrics when no request is under way."""
    metrics = gateway.metrics()
    return None if metrics.value("inflight_requests") else metrics


@pytest.mark.parametrize("free", [False, True], ids=["paid", "free"])
def test_a_slot_is_free_when_the_origin_is_not_there(start_gateway: StartGateway, *, free: bool) -> None:
    """An origin that refuses connections holds no slot, and what was not sent consumes nothing."""
    gateway = start_gateway(overrides_to(refused_port()), policy=limits_policy([ONE]))
    target = "https://queue.fal.run/a/b/requests/1/status" if free else "https://fal.run/a/b"
    with gateway.connect() as client:
        answers = [client.ask(proxy_request(target, key=ONE, method="GET" if free else "POST")) for _ in range(3)]
    assert [(answer.status, left(answer, "parallel")) for answer in answers] == [(502, 0)] * 3


def test_a_paid_run_that_nobody_waits_for_holds_its_slot(scene: Scene) -> None:
    """A caller who leaves a paid run does not free its slot: it is read to its end, and only then the next may run."""
    with stuck() as script:
        scene.play(script)
        with scene.connect() as client:
            begin(client, ONE)
            scene.origin.wait_for_requests(1)
        with scene.connect() as other:  # noticed later than the one before it, and told of, since it is free
            other.send(scene.poll(key=FEW, fields=[(PLAY, "stuck")]))
            scene.origin.wait_for_requests(2)
        scene.gateway.wait_for_event("exchange", lambda event: event["key"] == "few" and event["status"] == 499)
        assert ask(scene.gateway, ONE).status == 429
        script.let_go.set()
        until(lambda: is_free(scene.gateway, ONE), "the slot after the run")


def test_a_drain_lets_slots_go(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """A worker that drains keeps its slots while its answers run out; exchanges and slots end together."""
    with stuck() as script, ExitStack() as stack:
        gateway = start_gateway(start_origin(script), policy=limits_policy([FEW]), FALGW_DRAIN_TIMEOUT="10")
        clients = [stack.enter_context(gateway.connect()) for _ in range(AT_ONCE)]
        for client in clients:
            begin(client, FEW)
        until(lambda: gateway.metrics().value("inflight_requests") == AT_ONCE, "all to be under way")
        gateway.process.signal(signal.SIGTERM)
        gateway.wait_for_event("gateway_draining")
        script.let_go.set()
        assert [client.read_response().status for client in clients] == [200] * AT_ONCE
        gateway.close()
        assert [event["status"] for event in gateway.events("exchange")] == [200] * AT_ONCE
