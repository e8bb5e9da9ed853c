"""Spans on their way out: a bounded queue, one daemon thread that renders and sends them, and a loss that is counted.

The decision: as with the log, the thread that serves requests only appends a closed record. A receiver that is down,
slow, or answers nonsense is waited for in the thread alone; meanwhile the queue fills, what finds it full is dropped
and counted, and the log says when that began and when it was over. What OTLP calls retryable is tried again with the
same spans, for a minute (OTLP specification, "Failures"); everything else costs the batch.
"""

from __future__ import annotations

import gzip
import random
import threading
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog

from gateway.platform.backoff import Backoff
from gateway.platform.http_client import Transport, UnreachableError
from gateway.telemetry.tracing.spans import export_of, resource_of, span_count, spans_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.telemetry.record import ExchangeRecord
    from gateway.telemetry.tracing.settings import TraceSettings

TRY_SECONDS: Final = 60.0
RENDERED_AT_ONCE: Final = 16
"""After so many the thread lets go of the interpreter lock: the event loop waits for 0.13 ms, and not for a batch."""

_ANSWER_MOST_BYTES: Final = 1 << 16
_GZIP_LEVEL: Final = 1
_LAST_SHARE: Final = 0.4  # of the time to close; an export under way takes up to a second to be stopped
_BACKOFF: Final = Backoff(first_seconds=1, longest_seconds=30)
_RETRYABLE: Final = frozenset(
    (
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    )
)


class Exporter:
    """The queue and its thread; made in the process that uses it."""

    def __init__(
        self, settings: TraceSettings, *, attributes: tuple[tuple[str, str], ...], ca_file: str | None
    ) -> None:
        """Start the thread. `attributes` are the resource's; `ca_file` is trusted where the settings name none."""
        self.count_dropped: Callable[[int], None] = _uncounted
        self._url, self._host = settings.endpoint, urlsplit(settings.endpoint).hostname
        self._resource = resource_of(attributes)
        self._bound, self._batch, self._delay = settings.queue, settings.batch, settings.delay_seconds
        self._is_gzipped = settings.is_gzipped
        encoding = ("Content-Encoding: gzip",) if settings.is_gzipped else ()
        self._fields = (*settings.fields, "Content-Type: application/x-protobuf", *encoding)
        seconds = settings.timeout_seconds
        self._transport = Transport(
            ca_file=settings.ca_file or ca_file, connect_seconds=seconds, answer_seconds=seconds
        )
        self._queue: deque[ExchangeRecord] = deque()
        self._in_hand: list[ExchangeRecord] = []  # out of the queue, neither taken nor dropped
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._count_lock = threading.Lock()
        self._is_failing = False
        self._runner = threading.Thread(target=self._run, name="trace-exporter", daemon=True)
        self._runner.start()

    def put(self, record: ExchangeRecord) -> None:
        """Take a closed record, which nobody may change from here on; drop and count it where the queue is full."""
        queue = self._queue
        waiting = len(queue)
        if waiting >= self._bound:
            self._drop((record,))
            return
        queue.append(record)
        if waiting + 1 == self._batch:
            self._wake.set()

    def close(self, timeout_seconds: float) -> None:
        """Send what waits, once, and end the thread, both within the time; what is left behind is counted."""
        self._closing.set()
        self._wake.set()
        self._runner.join(timeout_seconds * _LAST_SHARE)
        self._transport.stop()
        self._runner.join(timeout_seconds * (1 - _LAST_SHARE))
        if self._runner.is_alive():
            self._drop((*self._in_hand, *self._queue))
        else:
            self._transport.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._delay)
            self._wake.clear()
            self._export_all()
        self._export_all()

    def _export_all(self) -> None:
        while self._queue:
            batch = self._in_hand = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]
            taken = self._send(self._render(batch))
            self._in_hand = []
            if not taken:
                self._drop(batch)

    def _render(self, batch: list[ExchangeRecord]) -> bytes:
        spans: list[bytes] = []
        for number, record in enumerate(batch, 1):
            spans += spans_of(record)
            if number % RENDERED_AT_ONCE == 0:
                time.sleep(0)
        content = export_of(self._resource, spans)
        return gzip.compress(content, _GZIP_LEVEL) if self._is_gzipped else content

    def _send(self, content: bytes) -> bool:
        """Send until it is taken (True), refused, or the time is over; once while closing."""
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            fault, pause_seconds = self._attempt(content, attempt)
            if fault is None:
                self._recover()
                return True
            self._fail(fault)
            if pause_seconds is None or time.monotonic() + pause_seconds > began + TRY_SECONDS:
                return False
            if self._closing.wait(pause_seconds):
                return False

    def _attempt(self, content: bytes, attempt: int) -> tuple[str | None, float | None]:
        """Send once; return what was wrong, None for nothing, and the seconds to the next attempt, None for no such."""
        drawn = random.random()  # noqa: S311 - spreads load, guards nothing
        try:
            answer = self._transport.ask(self._url, fields=self._fields, content=content, most_bytes=_ANSWER_MOST_BYTES)
        except UnreachableError as fault:
            return str(fault), _BACKOFF.pause_seconds(attempt, drawn=drawn)
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return None, None
        fault_text = f"it answered {answer.status}"
        if answer.status not in _RETRYABLE:
            return fault_text, None
        return fault_text, _BACKOFF.pause_seconds(attempt, drawn=drawn, asked_seconds=answer.retry_after_seconds)

    def _fail(self, reason: str) -> None:
        if not self._is_failing and not self._closing.is_set():
            structlog.get_logger().warning("trace_export_failed", host=self._host, reason=reason)
        self._is_failing = True

    def _recover(self) -> None:
        if self._is_failing:
            structlog.get_logger().info("trace_export_recovered", host=self._host)
        self._is_failing = False

    def _drop(self, records: Sequence[ExchangeRecord]) -> None:
        with self._count_lock:  # the event loop drops, and so does the thread
            self.count_dropped(sum(map(span_count, records)))


def _uncounted(_spans: int) -> None:
    """Stand in until the process has a meter."""
