"""The time of a relay's turn, taken once for all that happens in it."""

from __future__ import annotations

from time import monotonic


class Clock:
    """`now` in monotonic seconds, as of the last turn: a time stamp for callbacks at no cost."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = monotonic()

    def tick(self) -> None:
        """Take the time."""
        self.now = monotonic()
