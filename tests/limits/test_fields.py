"""What callers are told of their limits: RateLimit, RateLimit-Policy, Retry-After; what operators are told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response
from tests.harness.origin import answering
from tests.harness.policy import GatewayKey
from tests.harness.waiting import until
from tests.limits.ground import content, limited, limits_policy, listed, requests, slots, told
from tests.wire.stage import PAGE, assert_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import Response
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

LONG: Final = 3600
RETRY_SECONDS: Final = 2
LATE_SECONDS: Final = 1.5
CONTRACT: Final = (
    requests(quota=60, window=60, burst=10, **{"class": "paid"}),
    requests("polls", quota=1200, window=60, **{"class": "free"}),
    slots(quota=8, **{"class": "paid"}),
    content(quota=2_000_000_000, window=3600),
)
"""The limits of the contract's own example."""

KEYS: Final = {
    key.id: key
    for key in (
        limited("contract", *CONTRACT),
        limited("one", requests(quota=1, window=LONG)),
        limited("logged", requests(quota=1, window=LONG)),
        limited("soon", requests(quota=1, window=RETRY_SECONDS)),
        limited("shadow", requests("tried", quota=1, window=LONG, shadow=True), requests("wide", quota=9, window=LONG)),
        limited("dark", requests("tried", quota=1, window=LONG, shadow=True)),
        limited("free"),
    )
}
NAMESAKE: Final = GatewayKey(id="namesake", team="family", entry={"limits": [requests("calls", quota=5, window=LONG)]})
TEAM: Final = (requests("calls", quota=7, window=LONG), slots("team.parallel", quota=3))


@pytest.fixture(scope="module")
def ground(lay_out: Callable[..., Scene]) -> Scene:
    """Return the module's scene."""
    keys = [*KEYS.values(), NAMESAKE]
    clients = {"cors_allowed_origins": [PAGE]}
    return lay_out(KEYS["contract"], limits_policy(keys, shared={"family": TEAM}, clients=clients))


@pytest.fixture
def scene(ground: Scene) -> Scene:
    """Return the module's scene with new books."""
    ground.play(answering())
    return ground.open_books()


def ask(scene: Scene, name: str) -> Response:
    """Ask once by the key of this name."""
    return scene.ask(scene.request(key=KEYS[name]))


# -- fields -----------------------------------------------------------------------------------------------------------


def test_paid_and_free_calls_show_their_own_limits(scene: Scene) -> None:
    """Each class tells what it meets, as RFC 9651 has lists; a limit on what runs at once has a unit and no window."""
    paid, free = scene.ask(scene.request()), scene.ask(scene.poll())
    upload = {"q": 2_000_000_000, "qu": "content-bytes", "w": 3600}
    assert listed(paid, "ratelimit-policy") == {
        "submits": {"q": 60, "w": 60},
        "parallel": {"q": 8, "qu": "concurrent-requests"},
        "upload": upload,
    }
    assert listed(free, "ratelimit-policy") == {"polls": {"q": 1200, "w": 60}, "upload": upload}
    assert told(paid) == {"submits": {"r": 9, "t": 1}, "parallel": {"r": 7}, "upload": {"r": 2_000_000_000, "t": 0}}
    assert told(free).keys() == {"polls", "upload"}


def test_a_key_without_limits_is_told_nothing(scene: Scene) -> None:
    """No limits, no fields."""
    answer = ask(scene, "free")
    assert (listed(answer, "ratelimit"), listed(answer, "ratelimit-policy")) == ({}, {})


def test_limits_of_one_name_are_told_apart(scene: Scene) -> None:
    """A team's limit that is called like the key's is told as the team's."""
    answer = scene.ask(scene.request(key=NAMESAKE))
    assert {name: item["r"] for name, item in told(answer).items()} == {"calls": 4, "team.calls": 6, "team.parallel": 2}


@pytest.mark.parametrize("status", [200, 402, 404, 422, 429, 500, 503])
def test_answers_of_the_origin_carry_the_fields(scene: Scene, status: int) -> None:
    """Whatever the origin says, the answer tells what is left here; its status passes unchanged."""
    scene.play(answering(http_response(status=status)))
    answer = scene.ask(scene.request())
    assert answer.status == status
    assert told(answer).keys() == {"submits", "parallel", "upload"}


def test_answers_for_a_failing_origin_carry_the_fields(scene: Scene) -> None:
    """The clean 500 for an origin that broke off is the answer to a granted call: it was sent, and it has consumed."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.reset()

    scene.play(script)
    answer = scene.ask(scene.request())
    assert_problem(answer, 500, "origin_failed")
    assert told(answer).keys() == {"submits", "parallel", "upload"}


def test_a_page_may_read_the_fields(scene: Scene) -> None:
    """A page of an allowed origin sees the fields of grants and of refusals."""
    granted = scene.ask(scene.request(fields=[("Origin", PAGE)]))
    ask(scene, "one")
    refused = scene.ask(scene.request(key=KEYS["one"], fields=[("Origin", PAGE)]))
    assert (granted.status, refused.status) == (200, 429)
    assert {"ratelimit", "ratelimit-policy"} <= exposed(granted)
    assert {"ratelimit", "ratelimit-policy", "retry-after"} <= exposed(refused)


def exposed(answer: Response) -> set[str]:
    """Return the names that a page may read."""
    return {name.strip().lower() for name in (answer.field("access-control-expose-headers") or "").split(",")}


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_refusal_is_told_logged_and_counted(scene: Scene) -> None:
    """429 names the limit and the time to wait, is one event and one count, and never reaches the origin."""
    assert ask(scene, "logged").status == 200
    refused = ask(scene, "logged")
    assert_problem(refused, 429, "quota_exceeded")
    assert told(refused) == {"submits": {"r": 0, "t": LONG}}
    assert (refused.field("retry-after"), "submits" in refused.json()["detail"]) == (str(LONG), True)
    request_id = refused.field("x-gateway-request-id")
    event = scene.gateway.wait_for_event("exchange", lambda event: event["request_id"] == request_id)
    assert (event["outcome"], event["error_type"]) == ("refused", "quota_exceeded")
    assert (event["key"], event["team"], event["class"], event["status"]) == ("logged", "logged", "paid", 429)
    assert scene.gateway.metrics().value("refusals_total", key="logged", error_type="quota_exceeded") == 1
    assert len(scene.origin.requests) == 1


def test_refusals_are_counted_from_zero(scene: Scene) -> None:
    """Every key has its series of refusals before the first one, so that an increase is seen."""
    metrics = scene.gateway.metrics()
    assert metrics.value("refusals_total", key="free", team="free", error_type="quota_exceeded") == 0


def test_retry_after_is_right_to_a_second(scene: Scene) -> None:
    """Whoever asks again after the time told is granted; more than a second before it, nobody is."""
    assert ask(scene, "soon").status == 200
    refused, refused_at = ask(scene, "soon"), time.monotonic()
    seconds = int(refused.field("retry-after") or 0)
    assert (refused.status, seconds) == (429, RETRY_SECONDS)
    until(lambda: ask(scene, "soon").status == 200, "a grant")
    assert seconds - 1 < time.monotonic() - refused_at < seconds + LATE_SECONDS


# -- shadow -----------------------------------------------------------------------------------------------------------


def test_a_shadow_limit_refuses_nobody(scene: Scene) -> None:
    """It counts whom it would have refused, callers are not told of it, and what is enforced beside it holds."""
    before = scene.gateway.metrics()
    answers = [ask(scene, "shadow") for _ in range(4)]
    assert [told(answer) for answer in answers] == [{"wide": {"r": 8 - n, "t": t}} for n, t in times(answers)]
    assert {answer.status for answer in answers} == {200}
    assert (ask(scene, "dark").status, ask(scene, "dark").status) == (200, 200)
    after = scene.gateway.metrics()
    assert after.value("shadow_refusals_total", key="shadow", team="shadow") == 3
    assert after.value("shadow_refusals_total", key="dark", team="dark") == 1
    for name in ("shadow", "dark"):
        assert after.value("refusals_total", key=name) == before.value("refusals_total", key=name) == 0


def times(answers: list[Response]) -> list[tuple[int, int]]:
    """Return the number of each answer, and when it says that one unit more comes."""
    return [(number, told(answer)["wide"]["t"]) for number, answer in enumerate(answers)]


def test_a_limit_in_the_shadow_alone_is_not_told(scene: Scene) -> None:
    """Where nothing is enforced, there are no fields."""
    assert listed(ask(scene, "dark"), "ratelimit-policy") == {}
