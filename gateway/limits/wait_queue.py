"""Calls that wait a moment for a slot instead of being refused: in the order in which they came, limit by limit.

Calls beyond a rate need no queue: their turn is worked out when they ask (`Verdict.delay`). A slot becomes free when
another exchange ends, here or in another worker, so the first in each line asks again: at once when a slot is given
back here, else some fifty times a second. Nobody overtakes within a worker; the bound is the limit's `max_wait`, and
lines are no longer than there may be requests in flight.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from gateway.policy.quota import CONCURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.policy.quota import LimitSet

_LOOK_SECONDS: Final = 0.02


class Waiter(Protocol):
    """A call in line: at the limit named by `line`, until it `is_over` (granted, refused or given up)."""

    @property
    def line(self) -> str:
        """The store's name of the limit; another one once it is that one's slots that are missing."""

    @property
    def is_over(self) -> bool:
        """Whether it is to be taken out of its line."""

    @property
    def is_asking(self) -> bool:
        """Whether the store has still to answer it."""

    def ask_again(self) -> None:
        """Ask the store once more, or give up when the time is over."""


class WaitQueue:
    """The lines of one worker."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        """`later(seconds, call)` calls back."""
        self._later = later
        self._lines: dict[str, deque[Waiter]] = {}
        self._is_due = False  # a look around in a while
        self._is_freed = False  # a look around at once

    def line_for(self, limits: LimitSet) -> str | None:
        """Return the limit at which others wait already, so that who comes now has to stand behind them."""
        if limits.waits and self._lines:
            for limit in limits.limits:
                if limit.kind == CONCURRENT and limit.store_name in self._lines:
                    return limit.store_name
        return None

    def add(self, waiter: Waiter) -> None:
        """Stand in its line, at the end."""
        self._lines.setdefault(waiter.line, deque()).append(waiter)
        self._look_in_a_while()

    def slot_freed(self) -> None:
        """Let the first ones ask again, once what is going on is over."""
        # Beside the look that is due anyway: setting that one anew would leave one more, for good, with each slot.
        if self._lines and not self._is_freed:
            self._is_freed = True
            self._later(0.0, self._look_at_once)

    def _look_at_once(self) -> None:
        self._is_freed = False
        self._look_around()

    def _look_in_a_while(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._is_due = False
        self._look_around()
        if self._lines:
            self._look_in_a_while()

    def _look_around(self) -> None:
        for name, line in list(self._lines.items()):
            self._move_up(name, line)
            if not line:
                del self._lines[name]

    @staticmethod
    def _move_up(name: str, line: deque[Waiter]) -> None:
        while line:
            first = line[0]
            if not first.is_over and not first.is_asking:
                first.ask_again()
            if not first.is_over and first.line == name:  # else it holds up nobody here
                return
            line.popleft()
