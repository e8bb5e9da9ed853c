"""A gateway before an origin whose script each test sets anew, and the books of both: nothing lost, nothing twice.

The decision it carries: every test of a fault asks for the books. `settled` waits for the events of its requests and
compares them with the counters, so that a request that is logged twice or counted never fails whatever test it was in.
"""

from __future__ import annotations

import contextlib
import queue
import socket
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from tests.harness.client import RawClient, Response
from tests.harness.gateway import PREFIX
from tests.harness.messages import proxy_head, proxy_request
from tests.harness.origin import OriginConnection, ScriptedOrigin, answering
from tests.harness.waiting import until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from tests.harness.gateway import Gateway, Metrics
    from tests.harness.policy import GatewayKey

TOLD_SECONDS: Final = 10.0
FREE_TARGET: Final = "https://queue.fal.run/fal-ai/flux/requests/5f0f5e0c/status"
COUNTERS: Final = MappingProxyType(
    {
        "status": ("requests_total", "status"),
        "refused": ("refusals_total", "error_type"),
        "failed": ("upstream_failures_total", "error_type"),
    }
)
JSON_TYPE: Final = ("Content-Type", "application/json")


class ScriptSlot:
    """An origin whose connections all run the script of the moment; a script reports by `tell`."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._script: Callable[[OriginConnection], object] = answering()
        self._connections: list[OriginConnection] = []
        self._reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.origin = ScriptedOrigin(self._run, tls=tls)

    def _run(self, connection: OriginConnection) -> None:
        self._connections.append(connection)
        self._script(connection)

    def play(self, script: Callable[[OriginConnection], object]) -> None:
        """Forget what was received, leave every connection, and run this script on those to come."""
        self._script = script
        for connection in self._connections:
            with contextlib.suppress(OSError):  # where it had ended already
                connection.socket.shutdown(socket.SHUT_RDWR)
        self._connections.clear()
        self.origin.requests.clear()
        self.origin.connections = 0
        self._reports = queue.SimpleQueue()

    def tell(self, report: object) -> None:
        """Report to the test."""
        self._reports.put(report)

    def told(self, *, timeout_seconds: float = TOLD_SECONDS) -> Any:  # noqa: ANN401 - whatever was told
        """Wait for the next report; AssertionError where none comes."""
        try:
            return self._reports.get(timeout=timeout_seconds)
        except queue.Empty:
            raise AssertionError(f"the origin reported nothing in {timeout_seconds:g} s") from None


class Scene(ScriptSlot):
    """One gateway with one key, before one origin."""

    def __init__(
        self, start: Callable[[ScriptedOrigin], Gateway], key: GatewayKey, *, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(tls=tls)
        self.key = key
        self.gateway = start(self.origin)
        self.open_books()

    def open_books(self) -> Self:
        """Forget what was booked so far: what a test before this one has left."""
        self._events_seen = len(self.gateway.events("exchange"))
        self._metrics_seen = self.gateway.metrics()
        return self

    def connect(self, *, receive_buffer_bytes: int | None = None) -> RawClient:
        """Open a raw connection to the gateway; the test closes it."""
        return RawClient(self.gateway.port, receive_buffer_bytes=receive_buffer_bytes)

    def request(self, **parts: Any) -> bytes:  # noqa: ANN401 - as `proxy_request` takes them
        """Return a whole request by this scene's key; paid, unless the parts say otherwise."""
        return proxy_request(**{"key": self.key, **parts})

    def poll(self, **parts: Any) -> bytes:  # noqa: ANN401 - as `proxy_request` takes them
        """Return a whole free GET by this scene's key."""
        return self.request(target=FREE_TARGET, method="GET", **parts)

    def head(self, *fields: tuple[str, str], **parts: Any) -> bytes:  # noqa: ANN401 - as `proxy_head` takes them
        """Return the head of a POST by this scene's key, with these further fields."""
        return proxy_head(**{"key": self.key, "fields": fields, **parts})

    def ask(self, request: bytes) -> Response:
        """Send a request on a connection of its own; return its whole answer."""
        with self.connect() as client:
            return client.ask(request)

    def settled(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for the `exchange` events of `count` requests since the last time, and check that the counters agree.

        Requests that had ended before this is called: anything beyond `count` fails.
        """
        events = until(lambda: self._fresh_events(count), f"{count} exchange events", timeout_seconds=TOLD_SECONDS)
        assert len(events) == count, [(event["status"], event["outcome"]) for event in events]
        before, after = self._metrics_seen, self.gateway.metrics()
        self._events_seen, self._metrics_seen = self._events_seen + count, after
        assert len({event["request_id"] for event in events}) == count
        assert counts(before, after) == booked(events)
        assert after.value("inflight_requests") == 0
        return events

    def _fresh_events(self, count: int) -> list[dict[str, Any]] | None:
        events = self.gateway.events("exchange")[self._events_seen :]
        return events if len(events) >= count else None

    def close(self) -> None:
        """End the gateway, then the origin."""
        self.gateway.close()
        self.origin.close()


def booked(events: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """Return what the counters should have grown by for these events."""
    expected: Counter[tuple[str, str]] = Counter()
    for event in events:
        expected["status", str(event["status"])] += 1
        if event["outcome"] == "refused":
            expected["refused", event["error_type"]] += 1
        elif event["error_type"]:
            expected["failed", event["error_type"]] += 1
        expected["gone", ""] += event["outcome"] == "client_gone"
    return +expected


def counts(before: Metrics, after: Metrics) -> Counter[tuple[str, str]]:
    """Return what the counters of requests, refusals, failures and clients gone have grown by."""
    grown = totals(after)
    grown.subtract(totals(before))
    return +grown


def totals(metrics: Metrics) -> Counter[tuple[str, str]]:
    """Return these counters' values by status or error type; a family without a series yet counts nothing."""
    found: Counter[tuple[str, str]] = Counter()
    for what, (family, label) in COUNTERS.items():
        if f"{PREFIX}{family}{{" in metrics.text:
            for value in {series[label] for series in metrics.series(family)}:
                found[what, value] = int(metrics.value(family, **{label: value}))
    found["gone", ""] = int(metrics.value("clients_gone_total"))
    return found
