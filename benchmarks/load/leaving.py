"""Callers that leave in the midst of an exchange: how long until the origin sees its connection end.

The requests are free ones (`/requests/…` on the queue): a gateway that reads a paid answer on for its price does right.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks.load.transfers import connect, json_content
from benchmarks.load.wrk import LoadError

if TYPE_CHECKING:
    import socket

    from benchmarks.origin import Counters, Origin
    from benchmarks.route import Route

NOTICE_SECONDS: Final = 3.0
"""An origin that has seen nothing by then is said to see nothing."""

_BEGIN_SECONDS: Final = 4.0
_LOOK_SECONDS: Final = 0.001
_UPLOAD_BYTES: Final = 50_000_000
_SENT_BYTES: Final = 1_000_000
_STALL_SECONDS: Final = 0.05

PHASES: Final = {
    "upload": ("POST", "/bench/sink/requests/1", _UPLOAD_BYTES),
    "waiting": ("GET", "/bench/hang/requests/1", None),
    "download": ("GET", "/bench/down/500000000/requests/1", None),
}
"""Where the caller leaves: method, the origin's path, length of the content (never sent whole)."""


def leave(route: Route, origin: Origin, phase: str) -> float:
    """Begin an exchange, leave in this phase of it, and return the seconds until the origin sees it.

    LoadError where the exchange does not reach the origin; infinity where the origin sees nothing in NOTICE_SECONDS.
    """
    method, path, length = PHASES[phase]
    before = origin.counters()
    sock = connect(route.port)
    try:
        sock.setblocking(True)  # noqa: FBT003 (the standard library's signature)
        sock.sendall(route.head(method, path, content_length=length))
        if length:
            sock.sendall(json_content(_SENT_BYTES))
        _wait_begun(sock, origin, before, phase=phase)
    finally:
        left_ns = time.monotonic_ns()
        sock.close()
    return _seconds_until_seen(origin, before, left_ns=left_ns)


def _wait_begun(sock: socket.socket, origin: Origin, before: Counters, *, phase: str) -> None:
    """Wait until the exchange is in its phase at the origin."""
    deadline = time.monotonic() + _BEGIN_SECONDS
    while not _is_begun(origin.counters(), before, phase=phase):
        if time.monotonic() > deadline:
            raise LoadError("the exchange did not reach the origin")
        time.sleep(_LOOK_SECONDS)
    if phase == "download":
        sock.recv(1000)
        time.sleep(_STALL_SECONDS)  # the buffers between origin and caller fill up: only an end moves anything then


def _is_begun(now: Counters, before: Counters, *, phase: str) -> bool:
    if phase == "upload":
        return now.content_bytes > before.content_bytes
    return now.requests > before.requests


def _seconds_until_seen(origin: Origin, before: Counters, *, left_ns: int) -> float:
    deadline = time.monotonic() + NOTICE_SECONDS
    while time.monotonic() < deadline:
        now = origin.counters()
        if now.aborted > before.aborted:
            return max(0, now.last_abort_ns - left_ns) / 1e9
        time.sleep(_LOOK_SECONDS)
    return float("inf")
