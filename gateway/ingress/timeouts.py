"""How long a caller may take, looked at twice a second for all connections: no timer for a request.

Tornado's own bounds are an hour for a head and an absolute time for a body. Here a head has a
bound in total, and content and answers have one on silence, plus a least rate for content, so that a caller who sends a
byte now and then does not hold a place for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Final

LOOK_SECONDS: Final = 0.5
_RATE_WINDOW_SECONDS: Final = 30.0
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 64 * 1024 * 1024
"""What is read and thrown away behind an early answer, so that the caller gets to see it."""


@dataclass(frozen=True, slots=True)
class CallerTimeouts:
    """Bounds: seconds for a head, seconds of silence, bytes a second of content over 30 s, seconds between requests."""

    head_seconds: float
    idle_seconds: float
    least_rate: float
    keepalive_seconds: float


class Verdict(Enum):
    """What to do about a connection."""

    FINE = "fine"
    CLOSE = "close"  # nobody waits for an answer
    LATE = "late"  # the request does not come: 408 where that can still be said
    CUT = "cut"  # the answer is not taken


class Watch:
    """What one connection's looks have to remember. Times are monotonic seconds.

    `since`: when it was accepted, its last answer was whole, or the head that is coming began.
    """

    __slots__ = (
        "_budget",
        "_deadline",
        "_patience",
        "_progress",
        "_progress_at",
        "_received",
        "_received_at",
        "_used",
        "_window_at",
        "_window_bytes",
        "lingers",
        "since",
    )

    def __init__(self, patience: CallerTimeouts) -> None:
        self._patience = patience
        self.since = self._received_at = self._progress_at = self._window_at = monotonic()
        self._received = self._window_bytes = 0
        self._progress = -1
        self._used = False  # a request has been served
        self._deadline: float | None = None
        self._budget = 0
        self.lingers = False  # whatever comes is thrown away

    def received(self, size: int, now: float) -> None:
        """Note bytes from the caller."""
        self._received += size
        self._received_at = now

    def began(self) -> None:
        """Note a request's head."""
        self._used = True
        self._window_at, self._window_bytes = self._received_at, self._received

    def idle(self) -> None:
        """Note that the connection waits for its next request."""
        self.since = monotonic()
        self._deadline = None

    def swallow(self, size: int) -> None:
        """Allow the rest of a refused request a little time and these bytes."""
        self._deadline = monotonic() + _LINGER_SECONDS
        self._budget = self._received + size

    def linger(self) -> None:
        """Throw away what comes, for a little while, then close."""
        self.lingers = True
        self.swallow(_LINGER_BYTES)

    def resting(self, now: float, *, in_head: bool) -> Verdict:
        """Judge a connection without a request; `in_head`: one has begun to come."""
        if self._deadline is not None:
            return Verdict.CLOSE if now > self._deadline or self._received > self._budget else Verdict.FINE
        if in_head:
            return Verdict.LATE if now - self.since > self._patience.head_seconds else Verdict.FINE
        bound = self._patience.keepalive_seconds if self._used else self._patience.head_seconds
        return Verdict.CLOSE if now - self.since > bound else Verdict.FINE

    def head_begins(self, now: float) -> None:
        """Note the first byte of a head: its time runs from here."""
        self.since = now

    def sending(self, now: float, *, progress: int) -> Verdict:
        """Judge a caller who has not taken all of its answer; `progress`: bytes that it has taken, in all."""
        if progress != self._progress:
            self._progress, self._progress_at = progress, now
        return Verdict.CUT if now - self._progress_at > self._patience.idle_seconds else Verdict.FINE

    def uploading(self, now: float, *, held: bool) -> Verdict:
        """Judge a caller whose content is not whole; `held`: it is we who do not read."""
        if held:
            self._received_at = self._window_at = now
            self._window_bytes = self._received
            return Verdict.FINE
        if now - self._received_at > self._patience.idle_seconds:
            return Verdict.LATE
        elapsed = now - self._window_at
        if elapsed < _RATE_WINDOW_SECONDS:
            return Verdict.FINE
        rate = (self._received - self._window_bytes) / elapsed
        self._window_at, self._window_bytes = now, self._received
        return Verdict.LATE if rate < self._patience.least_rate else Verdict.FINE
