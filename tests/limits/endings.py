"""Every way in which an exchange can end, as what its caller and its origin do.

Each ending sends one request and ends it, for better or worse; a slot that one of them keeps shows in the next request.
The origin does what the field `x-fal-play` asks it for, so that endings can be mixed over one gateway.
"""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tests.harness.messages import chunked, http_response, message
from tests.harness.wire import Truncated

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import RawClient
    from tests.harness.origin import OriginConnection
    from tests.harness.policy import GatewayKey
    from tests.harness.scene import Scene

MOST_BYTES: Final = 100_000
IDLE_SECONDS: Final = 0.5
PLAY: Final = "x-fal-play"
STALLED: Final = "origin stalls"
_LARGE: Final = b"x" * 80_000
_IMAGE: Final = ("Content-Type", "image/png")


def play(connection: OriginConnection) -> None:
    """Do on each connection what its requests ask for; an ordinary answer where they ask for nothing."""
    while (request := connection.read_head()) is not None:
        part = (request.head.value(PLAY.encode()) or b"").decode()
        if part == "early":
            connection.send(http_response(status=422, fields=[("Connection", "close")]))
            return
        connection.read_body(request)
        if part == "reset":
            connection.reset()
            return
        if part == "stall":
            connection.wait_for_leaving()
            return
        if part == "broken":
            connection.send(message("HTTP/1.1 200 OK", [_IMAGE, ("Content-Length", "1000")], b"x" * 10))
            return
        connection.send(http_response(status=500) if part == "500" else answer(part))


def answer(part: str) -> bytes:
    """Return a good answer: `large` is one that a caller can leave in its midst."""
    return http_response(b"x" * 300_000, fields=[_IMAGE]) if part == "large" else http_response()


def _asked(part: str, *, free: bool = False) -> Callable[[Scene, GatewayKey], None]:
    """Return an ending that the origin brings about."""

    def end(scene: Scene, key: GatewayKey) -> None:
        fields = [(PLAY, part)]
        with contextlib.suppress(Truncated):  # a cut is one of the endings
            scene.ask(scene.poll(key=key, fields=fields) if free else scene.request(key=key, fields=fields))

    return end


def _left(
    part: str, leave: Callable[[RawClient], object], *, free: bool = False
) -> Callable[[Scene, GatewayKey], None]:
    """Return an ending by a caller who has heard the head of its answer, and leaves."""

    def end(scene: Scene, key: GatewayKey) -> None:
        fields = [(PLAY, part)]
        with scene.connect() as client:
            client.send(scene.poll(key=key, fields=fields) if free else scene.request(key=key, fields=fields))
            client.read_head()
            leave(client)

    return end


def _left_before_the_answer(scene: Scene, key: GatewayKey) -> None:
    with scene.connect() as client:
        client.send(scene.poll(key=key, fields=[(PLAY, "stall")]))


def _left_in_the_upload(scene: Scene, key: GatewayKey) -> None:
    with scene.connect() as client:
        client.send(scene.request(key=key, body=_LARGE)[:-1000])
        client.reset()


def _left_in_a_small_upload(scene: Scene, key: GatewayKey) -> None:
    with scene.connect() as client:
        client.send(scene.request(key=key, body=b"x" * 1000)[:-1])


def _too_large(scene: Scene, key: GatewayKey) -> None:
    with scene.connect() as client:
        client.send(scene.head(("Transfer-Encoding", "chunked"), key=key))
        client.send(chunked(b"x" * (MOST_BYTES + 10_000))[:-5])
        assert client.read_response().status == 413


def _broken_chunk(scene: Scene, key: GatewayKey) -> None:
    with scene.connect() as client:
        client.send(scene.head(("Transfer-Encoding", "chunked"), key=key) + b"5\r\nhello\r\nnot a size\r\n")
        answer = client.read_response()
        assert answer.status == 400, answer


ENDINGS: Final = MappingProxyType(
    {
        "answered": _asked(""),
        "answered, free": _asked("", free=True),
        "answered at length": _asked("large"),
        "origin's 500": _asked("500"),
        "origin's early 422": _asked("early"),
        "origin resets": _asked("reset"),
        "origin resets, free": _asked("reset", free=True),
        "origin breaks the answer": _asked("broken"),
        STALLED: _asked("stall"),
        "caller leaves before the answer": _left_before_the_answer,
        "caller leaves in the download": _left("large", lambda client: client.reset(), free=True),
        "caller leaves in a paid download": _left("large", lambda client: client.close()),
        "caller leaves in the upload": _left_in_the_upload,
        "caller leaves in a small upload": _left_in_a_small_upload,
        "content beyond the bound": _too_large,
        "a chunk that is none": _broken_chunk,
    }
)
"""Endings by name: each takes a scene and a key. `STALLED` needs a gateway whose first byte timeout is short."""
