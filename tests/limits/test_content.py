"""Limits on bytes of request content: counted as they pass, the next call pays for what was too much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.origin import answering
from tests.harness.waiting import until
from tests.limits.ground import content, left, limited, limits_policy, requests, told
from tests.wire.stage import assert_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import Response
    from tests.harness.policy import GatewayKey
    from tests.harness.scene import Scene

WINDOW: Final = 3600
QUOTA: Final = 360_000  # a hundred bytes a second
MOST_BYTES: Final = 4_000_000
MIB: Final = 1 << 20

KEYS: Final = {
    key.id: key
    for key in (
        limited("length", content(quota=QUOTA, window=WINDOW)),
        limited("chunked", content(quota=QUOTA, window=WINDOW)),
        limited("small", content(quota=QUOTA, window=WINDOW)),
        limited("huge", content(quota=QUOTA, window=WINDOW)),
        limited("broken", content(quota=QUOTA, window=WINDOW)),
        limited("refused", content(quota=QUOTA, window=WINDOW), requests(quota=1, window=WINDOW)),
        limited("growing", content(quota=10 * MIB, window=WINDOW)),
        limited("paying", content(quota=10_000, window=1)),
    )
}


@pytest.fixture(scope="module")
def ground(lay_out: Callable[..., Scene]) -> Scene:
    """Return the module's scene."""
    return lay_out(KEYS["small"], limits_policy(KEYS.values()), FALGW_MAX_BODY_BYTES=str(MOST_BYTES))


@pytest.fixture
def scene(ground: Scene) -> Scene:
    """Return the module's scene with new books."""
    ground.play(answering())
    return ground.open_books()


def send(scene: Scene, key: GatewayKey, size: int, *, in_chunks: bool = False) -> Response:
    """Send a call with so much content."""
    return scene.ask(scene.request(key=key, body=b"x" * size, in_chunks=in_chunks))


def near(value: int, wanted: int) -> bool:
    """Say whether a count is right but for what has come back meanwhile, within a minute."""
    return wanted <= value <= wanted + 60 * QUOTA // WINDOW


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [10_000, 100_000], ids=["in one piece", "streamed"])
def test_content_is_counted_as_it_passes(scene: Scene, *, in_chunks: bool, size: int) -> None:
    """What a request sends is missing in the next answer, whether its length was declared or not."""
    key = KEYS["chunked" if in_chunks else "length"]
    before = left(send(scene, key, 0), "upload")
    assert send(scene, key, size, in_chunks=in_chunks).status == 200
    assert near(left(send(scene, key, 0), "upload"), before - size)


def test_what_goes_beyond_is_not_cut_and_the_next_is_refused(scene: Scene) -> None:
    """A call that is granted is never cut for its length; the next one waits until the debt is paid."""
    key = KEYS["small"]
    answer = send(scene, key, QUOTA + 100_000)
    assert (answer.status, scene.origin.executions[-1].size) == (200, QUOTA + 100_000)
    refused = send(scene, key, 1)
    assert_problem(refused, 429, "quota_exceeded")
    seconds = int(refused.field("retry-after") or 0)
    assert 1000 - 60 <= seconds <= 1001  # 100,000 bytes at a hundred a second
    assert told(refused) == {"upload": {"r": 0, "t": seconds}}
    assert send(scene, key, 0).status == 429  # a call without content, too
    assert len(scene.origin.requests) == 1


def test_the_debt_is_at_most_one_window(scene: Scene) -> None:
    """Ten times the quota in one upload shuts a key out for one window and not for ten."""
    assert send(scene, KEYS["huge"], 10 * QUOTA).status == 200
    seconds = int(send(scene, KEYS["huge"], 0).field("retry-after") or 0)
    assert WINDOW - 60 <= seconds <= WINDOW + 1


def test_what_was_sent_of_a_broken_upload_is_counted(scene: Scene) -> None:
    """A caller that leaves in its upload has sent what it has sent."""
    key, size = KEYS["broken"], 200_000
    with scene.connect() as client:
        client.send(scene.request(key=key, body=b"x" * size)[:-1000])
        until(lambda: scene.origin.requests, "the upload at the origin")
        client.close()
    scene.gateway.wait_for_event("exchange", lambda event: (event["key"], event["status"]) == (key.id, 499))
    missing = QUOTA - left(send(scene, key, 0), "upload")
    assert 0 < missing < size


def test_an_upload_is_seen_to_grow(scene: Scene) -> None:
    """A long upload counts for others while it goes on."""
    key = KEYS["growing"]
    with scene.connect() as client:
        client.send(scene.head(("Content-Length", str(3 * MIB)), key=key) + b"x" * (2 * MIB))
        until(lambda: left(send(scene, key, 0), "upload") < 9 * MIB + 60 * 10 * MIB // WINDOW, "what has passed")
        client.send(b"x" * MIB)
        assert client.read_response().status == 200


def test_a_refused_call_counts_no_content(scene: Scene) -> None:
    """What another limit refuses sends nothing, so it pays for nothing."""
    key = KEYS["refused"]
    first = left(send(scene, key, 0), "upload")
    refused = send(scene, key, 50_000)
    assert_problem(refused, 429, "quota_exceeded")
    assert (first, set(told(refused))) == (QUOTA, {"submits"})


def test_after_retry_after_the_debt_is_paid(scene: Scene) -> None:
    """A refused call is granted when the time that it was told is over."""
    key = KEYS["paying"]
    assert send(scene, key, 12_000).status == 200
    refused = send(scene, key, 0)
    assert (refused.status, refused.field("retry-after")) == (429, "1")
    until(lambda: send(scene, key, 0).status == 200, "the debt to be paid", timeout_seconds=5)
