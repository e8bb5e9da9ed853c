"""Connections that the origin closes behind the system's back: POSTs that are lost, refused, or sent a second time.

Three ways to die. *Idle*: closed after an answer, and the next POST comes when that is done; nothing was executed, so
it must succeed on another connection. *Racing*: the next POST comes at any moment around the close; where the two
cross, no proxy can know whether it was executed. *Dying*: reset after the POST was read; it must never be sent again,
and its caller must be told. Each POST carries an id of its own, and the origin counts repeats.
"""

from __future__ import annotations

import itertools
import random
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from benchmarks.load.answer import AnswerReader
from benchmarks.load.transfers import CONNECT_SECONDS, connect, json_content

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from benchmarks.origin import Origin
    from benchmarks.route import Route

_CONTENT: Final = json_content(256)
_CLOSE_AFTER_MS: Final = (0, 1, 2, 5)
_LONGEST_PAUSE_SECONDS: Final = 0.008
_CLOSE_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.001
_WARM_PATH: Final = "/bench/post"
_FIRST_FAILURE: Final = 500
CUT: Final = 599
"""Stands for an answer that never came, or not whole."""


class PostIds:
    """Ids for POSTs, none given twice in a run of the origin."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def path(self, path: str) -> str:
        """Return the path with the next id."""
        return f"{path}?id={next(self._numbers)}"


def fail_on_idle(route: Route, origin: Origin, ids: PostIds, *, posts: int) -> int:
    """POST to an origin that closes after each answer, each time when it has; return how many failed."""
    failed = 0
    for ms in _close_times(posts):
        closed = origin.counters().closed
        failed += is_failure(post(route, ids.path(f"/bench/stale/{ms}")))
        _wait_closed(origin, closed)
    return failed


def fail_on_racing(route: Route, ids: PostIds, *, posts: int) -> int:
    """POST to an origin that closes after each answer, without regard to when; return how many failed."""
    pauses = random.Random(1)  # noqa: S311 (the same pauses in each run, not secrets)
    failed = 0
    for ms in _close_times(posts):
        failed += is_failure(post(route, ids.path(f"/bench/stale/{ms}")))
        time.sleep(pauses.uniform(0, _LONGEST_PAUSE_SECONDS))
    return failed


def fail_on_dying(route: Route, ids: PostIds, *, posts: int) -> int:
    """POST to an origin that reads it on a pooled connection and resets that; return how many failed: all should."""
    failed = 0
    for _ in range(posts):
        post(route, _WARM_PATH)  # so that there is a connection in the pool
        failed += is_failure(post(route, ids.path("/bench/die")))
    return failed


def is_failure(status: int) -> bool:
    """Say whether a status is one of a server's failures, or stands for a cut."""
    return status >= _FIRST_FAILURE


def _close_times(posts: int) -> Iterator[int]:
    return itertools.islice(itertools.cycle(_CLOSE_AFTER_MS), posts)


def _wait_closed(origin: Origin, closed: int) -> None:
    """Wait until the origin has closed one connection more.

    Not for long: a failed POST may never reach it, and a system without a pool closes before it does.
    """
    deadline = time.monotonic() + _CLOSE_SECONDS
    while origin.counters().closed <= closed and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def post(route: Route, path: str) -> int:
    """POST 256 bytes on a new connection; return the status, CUT where there was no whole answer."""
    answer = AnswerReader()
    try:
        with closing(connect(route.port)) as sock:
            sock.settimeout(CONNECT_SECONDS)
            sock.sendall(route.head("POST", path, content_length=len(_CONTENT)) + _CONTENT)
            _receive(sock, answer)
    except OSError:  # refused or reset: no answer, like any other cut
        return CUT
    return answer.status if answer.is_done else CUT


def _receive(sock: socket.socket, answer: AnswerReader) -> None:
    buffer = memoryview(bytearray(65536))
    while not answer.is_done and (received := sock.recv_into(buffer)):
        answer.take(buffer[:received])
