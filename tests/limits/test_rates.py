"""Limits on requests: exact over any time, with several workers, through a worker's death; all or nothing."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import proxy_request
from tests.harness.origin import answering
from tests.harness.scene import FREE_TARGET
from tests.harness.waiting import until
from tests.limits.ground import (
    LOST,
    Barrage,
    Row,
    assert_exact,
    counted,
    left,
    limited,
    limits_policy,
    requests,
    slots,
    told,
)
from tests.wire.stage import assert_problem
from tests.wire.test_workers import workers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import Response
    from tests.harness.gateway import StartGateway
    from tests.harness.origin import StartOrigin
    from tests.harness.policy import GatewayKey
    from tests.harness.scene import Scene

SECONDS: Final = 3.0
WINDOW: Final = 2
QUOTA: Final = 12  # six a second: what a busy machine delays stays below one unit
BURST: Final = 5
RATE: Final = QUOTA / WINDOW
LONG: Final = 3600
POLLS: Final = 1000

KEYS: Final = {
    key.id: key
    for key in (
        limited("plain", requests(quota=2, window=LONG)),
        limited("bucket", requests(quota=60, window=LONG, burst=3)),
        limited(
            "both-rates",
            requests("narrow", quota=1, window=LONG),
            requests("wide", quota=100, window=LONG),
            slots(quota=9),
        ),
        limited(
            "jobs",
            requests("submits", quota=20, window=LONG, **{"class": "paid"}),
            requests("polls", quota=POLLS, window=LONG, **{"class": "free"}),
        ),
        limited("everything", requests("calls", quota=2, window=LONG)),
    )
}
SHARED: Final[dict[str, list[Row]]] = {"design": [requests("pool", quota=3, window=LONG), slots("seats", quota=5)]}
FIRST: Final = limited("first", requests("submits", quota=2, window=LONG))
SECOND: Final = limited("second", requests("submits", quota=100, window=LONG))


@pytest.fixture(scope="module")
def ground(lay_out: Callable[..., Scene]) -> Scene:
    """Return the module's scene."""
    members = [type(key)(id=key.id, secret=key.secret, team="design", entry=key.entry) for key in (FIRST, SECOND)]
    return lay_out(KEYS["plain"], limits_policy([*KEYS.values(), *members], shared=SHARED))


@pytest.fixture
def scene(ground: Scene) -> Scene:
    """Return the module's scene with new books."""
    ground.play(answering())
    return ground.open_books()


def ask(scene: Scene, key: GatewayKey, *, free: bool = False) -> Response:
    """Ask once, on a connection of its own."""
    return scene.ask(scene.poll(key=key) if free else scene.request(key=key))


# -- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_what_is_granted_is_the_rate_and_the_burst(
    start_gateway: StartGateway, start_origin: StartOrigin, *, workers: int
) -> None:
    """At three times the quota, quota / window x t + burst calls pass, give or take one, whoever serves them."""
    key = limited("pace", requests(quota=QUOTA, window=WINDOW, burst=BURST))
    origin = start_origin()
    gateway = start_gateway(origin, policy=limits_policy([key]), workers=workers)
    decisions = Barrage(gateway, proxy_request(key=key), per_second=3 * RATE, seconds=SECONDS).decisions()
    statuses = counted(decisions)
    assert statuses.keys() == {200, 429}
    assert_exact(decisions, rate=RATE, burst=BURST, granted=statuses[200])
    assert len(origin.executions) == statuses[200]
    assert gateway.metrics().value("refusals_total", error_type="quota_exceeded", key="pace") == statuses[429]


def test_a_killed_worker_neither_gives_nor_takes_quota(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """What was consumed outlives the worker that granted it: the sum stays exact while one dies and comes back."""
    key = limited("pace", requests(quota=QUOTA, window=WINDOW, burst=BURST))
    origin = start_origin()
    gateway = start_gateway(origin, policy=limits_policy([key]), workers=2)
    before = workers_of(gateway)
    barrage = Barrage(gateway, proxy_request(key=key), per_second=3 * RATE, seconds=SECONDS + 1)
    until(lambda: len(origin.requests) > BURST + 1, "the burst to be spent")
    victim = next(iter(before))
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(workers_of(gateway).keys() - before.keys()) == 1, "a worker in its place")
    decisions = barrage.decisions()
    assert counted(decisions).keys() <= {200, 429, LOST}
    assert_exact(decisions, rate=RATE, burst=BURST, granted=len(origin.executions))


def test_burst_is_the_bucket(scene: Scene) -> None:
    """With a burst below the quota, only so many pass at once; what is told as left counts down to nothing."""
    answers = [ask(scene, KEYS["bucket"]) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [left(answer, "submits") for answer in answers] == [2, 1, 0, 0]
    assert told(answers[3])["submits"]["t"] in {59, 60}  # sixty an hour: one each minute


# -- all or nothing ---------------------------------------------------------------------------------------------------


def test_a_refused_call_consumes_nothing_of_any_limit(scene: Scene) -> None:
    """Where one limit says no, the others of the key are as they were: rates, and slots."""
    key = KEYS["both-rates"]
    assert left(ask(scene, key), "wide") == 99
    for _ in range(20):  # more than there are slots: one that was kept would show
        answer = ask(scene, key)
        assert_problem(answer, 429, "quota_exceeded")
        assert told(answer).keys() == {"narrow"}
    with scene.connect() as client:
        answer = client.ask(scene.poll(key=key))
    assert answer.status == 429  # without a class it holds for free calls too
    until(lambda: scene.gateway.metrics().value("inflight_requests") == 0, "the last answer's end")


def test_what_a_key_is_refused_its_team_keeps(scene: Scene) -> None:
    """A call that its key's limit refuses takes nothing of its team's, and the other way round."""
    first, second = ask(scene, FIRST), ask(scene, FIRST)
    assert [left(answer, "pool") for answer in (first, second)] == [2, 1]
    for _ in range(6):
        assert told(ask(scene, FIRST)).keys() == {"submits"}
    third = ask(scene, SECOND)
    assert (third.status, left(third, "pool"), left(third, "submits"), left(third, "seats")) == (200, 0, 99, 4)
    for _ in range(6):
        refused = ask(scene, SECOND)
        assert_problem(refused, 429, "quota_exceeded")
        assert told(refused).keys() == {"pool"}


# -- classes ----------------------------------------------------------------------------------------------------------


def test_polls_and_submits_do_not_spend_each_others_quota(scene: Scene) -> None:
    """Twenty jobs polled ten times leave the submits alone; a burst of refused submits starves no poll."""
    key = KEYS["jobs"]
    targets = [FREE_TARGET.replace("5f0f5e0c", f"{number:08x}") for number in range(20)]

    def submit_and_poll(target: str) -> list[Response]:
        with scene.connect() as client:
            submitted = client.ask(scene.request(key=key))
            polls = [client.ask(scene.request(key=key, target=target, method="GET")) for _ in range(10)]
        return [submitted, *polls]

    answers = [answer for target in targets for answer in submit_and_poll(target)]
    assert {answer.status for answer in answers} == {200}
    assert {name for answer in answers[::11] for name in told(answer)} == {"submits"}
    assert {name for answer in answers[1:11] for name in told(answer)} == {"polls"}
    assert POLLS - 200 <= left(answers[-1], "polls") < POLLS - 190
    with ExitStack() as stack:
        clients = [stack.enter_context(scene.connect()) for _ in range(20)]
        for client in clients:
            client.send(scene.request(key=key))
        assert {ask(scene, key, free=True).status for _ in range(20)} == {200}
        assert {client.read_response().status for client in clients} == {429}


def test_a_limit_without_a_class_counts_both(scene: Scene) -> None:
    """Free and paid calls spend one quota where the policy does not part them."""
    key = KEYS["everything"]
    assert [ask(scene, key, free=free).status for free in (True, False, True, False)] == [200, 200, 429, 429]


# -- money back -------------------------------------------------------------------------------------------------------


def test_what_was_not_sent_is_given_back(scene: Scene) -> None:
    """A caller that leaves before its content is whole sent nothing to the origin, so it consumed nothing."""
    key = KEYS["plain"]
    assert left(ask(scene, key), "submits") == 1
    for count in range(1, 4):
        with scene.connect() as client:
            client.send(scene.request(key=key, body=b"x" * 1000)[:-1])
        until(lambda: scene.gateway.metrics().value("clients_gone_total") == count, "the leaving")  # noqa: B023
    assert len(scene.origin.requests) == 1
    assert left(ask(scene, key), "submits") == 0
    assert ask(scene, key).status == 429
