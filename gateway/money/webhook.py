"""Posts warnings about budgets to the address that the policy names, signed, from a thread.

The decision: a receiver that is away is waited for, an hour for each warning, and then the warning is given up with one
event in the log; the budget itself is enforced whether or not anybody hears of it. Each attempt is signed anew, or a
late one would be refused as old. The log names the host and never the whole URL: with many receivers the path is the
password.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import structlog

from gateway.money.webhook_signature import HEADER, BudgetWarning, content_of, sign
from gateway.platform.backoff import Backoff, is_passing
from gateway.platform.http_client import Transport, UnreachableError

QUEUE_MOST: Final = 100
_ANSWER_MOST_BYTES: Final = 1 << 20
_END_SECONDS: Final = 2.0
_LOG: Final = structlog.get_logger


@dataclass(frozen=True, slots=True)
class Persistence:
    """How long a warning is tried for, how long to wait between attempts, and for an answer."""

    try_seconds: float = 3600
    backoff: Backoff = field(default_factory=lambda: Backoff(first_seconds=1, longest_seconds=300))
    connect_seconds: float = 5
    answer_seconds: float = 15


class _Posting(NamedTuple):
    content: bytes
    since: float  # of the monotonic clock


class Webhook:
    """The address and the thread that posts to it; made in the process that uses it."""

    def __init__(
        self, url: str, secret: str, *, ca_file: str | None = None, persistence: Persistence | None = None
    ) -> None:
        """Start the thread. `url` is http or https, ValueError else; `ca_file` as for fal (None: libcurl's default)."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address of a webhook should be an http or https URL")
        self._url, self._host = url, parts.hostname
        self._secret = secret.encode()
        self._persistence = persistence or Persistence()
        self._transport = Transport(
            ca_file=ca_file,
            connect_seconds=self._persistence.connect_seconds,
            answer_seconds=self._persistence.answer_seconds,
        )
        self._waiting: deque[_Posting] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._is_full = False
        self._thread = threading.Thread(target=self._post_all, name="budget-webhook", daemon=True)
        self._thread.start()

    def send(self, warning: BudgetWarning) -> bool:
        """Take a warning to be posted, and return at once; False, with one event in the log, where too many wait."""
        with self._wake:
            full = self._closing or len(self._waiting) >= QUEUE_MOST
            if not full:
                self._waiting.append(_Posting(content_of(warning), time.monotonic()))
                self._wake.notify()
            begins, self._is_full = full and not self._is_full, full
        if begins:
            _LOG().warning("webhook_full", host=self._host, waiting=QUEUE_MOST)
        return not full

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Try what waits once more, within the time, then end the thread, within 2 s more; harmless when done twice."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_seconds)
        self._transport.stop()
        self._thread.join(_END_SECONDS)
        if not self._thread.is_alive():
            self._transport.close()

    def _post_all(self) -> None:
        while (posting := self._next()) is not None:
            self._post(posting)

    def _next(self) -> _Posting | None:
        """Wait for a posting; None once there is none and the webhook is closing."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._closing)
            return self._waiting.popleft() if self._waiting else None

    def _post(self, posting: _Posting) -> None:
        """Post until it is taken, refused, or the time is over; while closing, once."""
        attempt = 0
        while True:
            attempt += 1
            fault, asked = self._attempt(posting.content)
            if fault is None:
                return
            pause = self._persistence.backoff.pause_seconds(
                attempt,
                drawn=random.random(),  # noqa: S311 - spreads load, guards nothing
                asked_seconds=asked,
            )
            over = time.monotonic() + pause > posting.since + self._persistence.try_seconds
            if asked is None or over or not self._may_go_on(pause):
                _LOG().error("webhook_given_up", host=self._host, attempts=attempt, reason=fault)
                return

    def _may_go_on(self, pause_seconds: float) -> bool:
        """Wait; False where the webhook is closing."""
        with self._wake:
            return not self._wake.wait_for(lambda: self._closing, pause_seconds)

    def _attempt(self, content: bytes) -> tuple[str | None, int | None]:
        """Post once; return what was wrong, None for nothing, and how long to wait at least, None for not again."""
        signature = sign(self._secret, content, at=int(time.time()))
        fields = ("Content-Type: application/json", f"{HEADER}: {signature}")
        try:
            answer = self._transport.ask(self._url, fields=fields, content=content, most_bytes=_ANSWER_MOST_BYTES)
        except UnreachableError as fault:
            return str(fault), 0
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return None, None
        again = (answer.retry_after_seconds or 0) if is_passing(answer.status) else None
        return f"it answered {answer.status}", again
