"""How long to wait before a request is sent again. Pure.

The decision: each wait may be twice as long as the one before, up to a bound, and is drawn from its upper half, so that
several gateways that failed together do not come back together.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Backoff:
    """The first wait and the longest one, in seconds."""

    first_seconds: float
    longest_seconds: float

    def pause_seconds(self, attempt: int, *, drawn: float, asked_seconds: int | None = None) -> float:
        """Return the wait behind an attempt, counted from 1; `drawn` is a random number from 0 to 1.

        `asked_seconds` is what the server wants at least (Retry-After, RFC 9110 section 10.2.3); it is followed as far
        as the longest wait.
        """
        whole = min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempt - 1, 60))
        return max(whole * (0.5 + drawn / 2), min(asked_seconds or 0, self.longest_seconds))


def is_passing(status: int) -> bool:
    """Say whether a status tells of trouble that may be over at the next attempt: 429, or 500 and above."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
