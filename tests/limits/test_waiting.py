"""Calls that wait for their turn (`max_wait`): in order, silent towards the origin, bounded in time and memory."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.gateway import PREFIX
from tests.harness.messages import http_response
from tests.harness.origin import answering
from tests.harness.policy import GatewayKey
from tests.harness.waiting import until
from tests.limits.ground import left, limited, limits_policy, requests, slots
from tests.wire.stage import assert_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.client import RawClient
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

MIB: Final = 1 << 20
KERNEL_BYTES: Final = 8 * MIB
"""What the buffers of a connection on loopback may hold, and a worker on top of it."""

SOON: Final = 1.5  # seconds, for what is due at once: less than anybody waits, more than a busy machine takes
TICK: Final = 0.25  # seconds between two turns of the key `poller`

KEYS: Final = {
    key.id: key
    for key in (
        limited("turns", requests(quota=4, window=1, burst=1, max_wait="2s")),
        limited("leaves", requests(quota=1, window=1, burst=1, max_wait="2s")),
        limited("short", requests(quota=1, window=60, burst=1, max_wait="500ms")),
        limited("line", slots(quota=1, max_wait="2s")),
        limited("limit", slots(quota=1, max_wait="500ms")),
        limited("silent", slots(quota=1, max_wait="2s")),
        limited("both", slots(quota=1, max_wait="2s"), requests(quota=10, window=3600)),
    )
}


NARROW: Final = GatewayKey(id="narrow", team="pair", entry={"limits": [slots("own", quota=1, max_wait="2s")]})
WIDE: Final = GatewayKey(id="wide", team="pair")
SHARED: Final = {"pair": [slots("seats", quota=2, max_wait="2s")]}


@pytest.fixture(scope="module")
def ground(lay_out: Callable[..., Scene]) -> Scene:
    """Return the module's scene."""
    return lay_out(KEYS["line"], limits_policy([*KEYS.values(), NARROW, WIDE], shared=SHARED))


@pytest.fixture
def scene(ground: Scene) -> Scene:
    """Return the module's scene with new books."""
    ground.play(answering())
    return ground.open_books()


class Held:
    """An origin's script: every answer waits for a permit; `begun` are the bodies in the order in which they came."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self._permits = threading.Semaphore(0)

    def __call__(self, connection: OriginConnection) -> None:
        """Answer."""
        while (request := connection.read_request()) is not None:
            self.begun.append(bytes(request.body[:8]))
            assert self._permits.acquire(timeout=30)
            connection.send(http_response())

    def permit(self, count: int = 1) -> None:
        """Let answers go."""
        self._permits.release(count)


@pytest.fixture
def held(scene: Scene) -> Iterator[Held]:
    """Return the script that the module's origin plays in this test; in the end all of its answers are let go."""
    script = Held()
    scene.play(script)
    yield script
    script.permit(100)


def begin(scene: Scene, stack: ExitStack, key: GatewayKey, *bodies: bytes) -> list[RawClient]:
    """Send these one after the other, each when the gateway has taken up the one before."""
    clients = []
    for body in bodies:
        before = taken_up(scene)
        client = stack.enter_context(scene.connect())
        client.send(scene.request(key=key, body=body))
        until(lambda: taken_up(scene) > before, "the request to be taken up")  # noqa: B023
        clients.append(client)
    return clients


def taken_up(scene: Scene) -> float:
    """Return how many requests the gateway has seen, those under way with them."""
    metrics = scene.gateway.metrics()
    over = metrics.value("requests_total") if f"{PREFIX}requests_total{{" in metrics.text else 0
    return over + metrics.value("inflight_requests")


# -- rates ------------------------------------------------------------------------------------------------------------


def test_calls_beyond_a_rate_wait_their_turn(scene: Scene) -> None:
    """They are let through one after the other, in the order in which they came, each when its unit comes."""
    arrivals: list[tuple[bytes, float]] = []

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            arrivals.append((bytes(request.body), time.monotonic()))
            connection.send(http_response())

    scene.play(script)
    with ExitStack() as stack:
        assert scene.ask(scene.request(key=KEYS["turns"])).status == 200
        clients = begin(scene, stack, KEYS["turns"], b"1", b"2", b"3", b"4")
        answers = [client.read_response() for client in clients]
    assert [answer.status for answer in answers] == [200] * 4
    assert [body for body, _ in arrivals[1:]] == [b"1", b"2", b"3", b"4"]
    moments = [moment for _, moment in arrivals]
    assert 3 * TICK < moments[-1] - moments[0] < 4 * TICK + SOON
    assert {left(answer, "submits") for answer in answers} == {0}


def test_a_call_that_would_wait_too_long_is_refused_at_once(scene: Scene) -> None:
    """A turn that comes after `max_wait` is no turn: 429 without any waiting, and its place is nobody's."""
    key = KEYS["short"]
    assert scene.ask(scene.request(key=key)).status == 200
    for _ in range(3):
        began = time.monotonic()
        answer = scene.ask(scene.request(key=key))
        assert time.monotonic() - began < SOON
        assert_problem(answer, 429, "quota_exceeded")
        assert answer.field("retry-after") == "60"


def test_a_caller_that_leaves_gives_its_turn_back(scene: Scene) -> None:
    """Two wait, and a third would wait too long; the second leaves, so the third may wait in its place."""
    key = KEYS["leaves"]
    with ExitStack() as stack:
        assert scene.ask(scene.request(key=key)).status == 200
        first, second = begin(scene, stack, key, b"1", b"2")
        second.close()
        scene.gateway.wait_for_event("exchange", lambda event: (event["key"], event["status"]) == (key.id, 499))
        assert scene.ask(scene.request(key=key, body=b"3")).status == 200
        assert first.read_response().status == 200
    assert [bytes(seen.body) for seen in scene.origin.requests] == [b"{}", b"1", b"3"]


# -- slots ------------------------------------------------------------------------------------------------------------


def test_a_slot_goes_to_who_came_first(scene: Scene, held: Held) -> None:
    """Calls that wait for a slot get it in the order in which they came, each as soon as one is free."""
    with ExitStack() as stack:
        clients = begin(scene, stack, KEYS["line"], b"0", b"1", b"2", b"3")
        until(lambda: held.begun, "the first at the origin")
        for number in range(1, 4):
            assert len(held.begun) == number
            freed = time.monotonic()
            held.permit()
            until(lambda: len(held.begun) > number, "the next at the origin")  # noqa: B023
            assert time.monotonic() - freed < SOON
        held.permit()
        assert [client.read_response().status for client in clients] == [200] * 4
    assert held.begun == [b"0", b"1", b"2", b"3"]


def test_who_waits_too_long_for_a_slot_is_refused(scene: Scene, held: Held) -> None:
    """After `max_wait` a call in line gets its 429, and not before."""
    with ExitStack() as stack:
        began = time.monotonic()
        first, second = begin(scene, stack, KEYS["limit"], b"0", b"1")
        refused = second.read_response()
        assert_problem(refused, 429, "quota_exceeded")
        assert refused.field("retry-after") == "1"
        assert 0.5 <= time.monotonic() - began < 0.5 + SOON
        held.permit()
        assert first.read_response().status == 200
        held.permit()
        assert scene.ask(scene.request(key=KEYS["limit"])).status == 200


def test_who_leaves_a_line_is_not_waited_for(scene: Scene, held: Held) -> None:
    """The one behind a caller who has left gets the slot, and nothing is sent for who has left."""
    with ExitStack() as stack:
        first, second, third = begin(scene, stack, KEYS["line"], b"0", b"1", b"2")
        second.reset()
        scene.gateway.wait_for_event("exchange", lambda event: (event["key"], event["status"]) == ("line", 499))
        held.permit(2)
        assert [first.read_response().status, third.read_response().status] == [200, 200]
    assert held.begun == [b"0", b"2"]


def test_who_leaves_a_line_gives_back_nothing_that_it_had_not(scene: Scene, held: Held) -> None:
    """A call that only waited for a slot took nothing of its key's rate, so its leaving adds nothing to it."""
    key = KEYS["both"]
    with ExitStack() as stack:
        (first,) = begin(scene, stack, key, b"0")
        for count in range(1, 4):
            begin(scene, stack, key, b"x")[0].reset()
            until(
                lambda: len([it for it in scene.gateway.events("exchange") if it["key"] == key.id]) == count,  # noqa: B023
                "the leaving",
            )
        held.permit(2)
        assert left(first.read_response(), "submits") == 9
        assert left(scene.ask(scene.request(key=key)), "submits") == 8


def test_who_lacks_a_slot_of_its_own_does_not_hold_up_its_team(scene: Scene, held: Held) -> None:
    """In its team's line, a call whose key has no slot free makes way for those behind it."""
    with ExitStack() as stack:
        one, two = begin(scene, stack, WIDE, b"1", b"2")
        until(lambda: len(held.begun) == 2, "the team's slots to be taken")
        narrow, stands, behind = (begin(scene, stack, key, b"x")[0] for key in (NARROW, NARROW, WIDE))
        held.permit()
        until(lambda: len(held.begun) == 3, "the narrow key's only slot to be taken")
        held.permit()
        until(lambda: len(held.begun) == 4, "the one behind to come through")
        held.permit(10)
        answers = [client.read_response() for client in (one, two, narrow, stands, behind)]
    assert [answer.status for answer in answers] == [200] * 5


# -- meanwhile --------------------------------------------------------------------------------------------------------


def test_a_waiting_call_is_silent_and_small(scene: Scene, held: Held) -> None:
    """While a call waits, its origin hears nothing, it is not told to send its content, and what it sends stays out."""
    key = KEYS["silent"]
    with ExitStack() as stack:
        (first,) = begin(scene, stack, key, b"0")
        until(lambda: held.begun, "the first at the origin")
        patient, pushing = stack.enter_context(scene.connect()), stack.enter_context(scene.connect())
        patient.send(scene.head(("Expect", "100-continue"), ("Content-Length", "200000"), key=key))
        pushing.socket.settimeout(0.3)
        pushed = push(pushing, scene.head(("Content-Length", str(64 * MIB)), key=key), 64 * MIB)
        assert pushed < KERNEL_BYTES
        connections = scene.origin.connections
        assert (len(held.begun), connections) == (1, 1)
        patient.socket.setblocking(False)  # noqa: FBT003 (the standard library's signature)
        with pytest.raises(BlockingIOError):
            patient.socket.recv(1)
        patient.socket.settimeout(20)
        held.permit(3)
        assert first.read_response().status == 200
        assert patient.reader.through(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        patient.send(b"x" * 200_000)
        answer = patient.read_response()
        assert answer.status == 200
    assert [seen.size for seen in scene.origin.executions] == [1, 200_000]


def push(client: RawClient, head: bytes, size: int) -> int:
    """Send a head and content until nothing more is taken; return how many bytes of content that were."""
    client.send(head)
    taken = 0
    try:
        while taken < size:
            taken += client.socket.send(b"x" * 65_536)
    except TimeoutError:
        pass
    return taken
