"""The one loop in the tests that waits: until a condition holds, bounded, and never for luck."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
POLL_SECONDS: Final = 0.01


def until(condition: Callable[[], T | None], what: str, *, timeout_seconds: float = 10.0) -> T:
    """Return the first true value of `condition`, asked every 10 ms; AssertionError with `what` after the time."""
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds:g} s in vain for {what}; last seen: {value!r}")
        time.sleep(POLL_SECONDS)
    return value
