"""What the tests of fal's own API share: a key, purchases at the emulator, pages of lists, events of the log."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING, Any, Final

from gateway.fal.api.client import Patience
from gateway.platform.backoff import Backoff
from tests.harness.messages import http_response
from tests.harness.ports import LOOPBACK

if TYPE_CHECKING:
    from tests.harness.emulator import Emulator

KEY: Final = "admin-id:canary-of-the-admin-key"
QUICK: Final = Patience(attempts=3, backoff=Backoff(0.001, 0.01), connect_seconds=5, answer_seconds=20)
ENDPOINT: Final = "fal-ai/flux/dev"


def named(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the events of a name."""
    return [event for event in list(events) if event["event"] == name]


def buy(fal: Emulator, endpoint: str = ENDPOINT, *, faults: str = "") -> str:
    """Buy one run at the emulator past any gateway; return fal's id of the request."""
    connection = http.client.HTTPConnection(LOOPBACK, fal.port, timeout=20)
    fields = {"Authorization": "Key any:key", "Content-Type": "application/json", "x-fal-emulate": faults}
    connection.request("POST", f"/hosts/fal.run/{endpoint}", b"{}", {n: v for n, v in fields.items() if v})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return str(answer.headers["x-fal-request-id"])


def page(name: str, entries: list[dict[str, Any]], *, next_cursor: str | None = None) -> bytes:
    """Return an answer with one page of a list."""
    content = {name: entries, "next_cursor": next_cursor, "has_more": next_cursor is not None}
    return http_response(json.dumps(content).encode())


class Gathered:
    """Collects what a callback is given, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Any] = []

    def __call__(self, value: object) -> None:
        """Take a value."""
        with self._lock:
            self._all.append(value)

    def all(self) -> list[Any]:
        """Return all that was given so far."""
        with self._lock:
            return list(self._all)
