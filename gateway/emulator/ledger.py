"""What the emulator was asked and what it executed: the ground truth that tests count and billing is made of.

Decision: a paid request is an *execution* at the instant at which its body has arrived whole and nothing refuses it,
before a byte of the answer is written; so a lost answer is still an execution, as it is at fal. Both lists are bounded.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

EXECUTIONS_MOST: Final = 100_000
VISITS_MOST: Final = 20_000


@dataclass(slots=True)
class Visit:
    """One request from its head to its end; mutable, because it is written while the exchange runs.

    `head` holds the received fields as `name: value` lines: a hundred thousand dictionaries would weigh ten times more.
    Times are seconds since the epoch. `outcome`: open, answered, dropped (by a fault), peer_gone, incomplete.
    """

    request_id: str
    kind: str
    method: str
    host: str
    target: str
    head: str
    started_at: float
    endpoint: str = ""
    whole_at: float | None = None
    ended_at: float | None = None
    bytes: int = 0
    sha256: str = ""
    executed: bool = False
    status: int | None = None
    units: str = "0"
    outcome: str = "open"
    number: int = 0

    def view(self) -> dict[str, object]:
        """Return the visit as JSON shows it; `fields` is a list of [name, value], names in lower case."""
        shown = {name: getattr(self, name) for name in self.__slots__ if name != "head"}
        fields = [line.split(": ", 1) for line in self.head.split("\n")] if self.head else []
        return {**shown, "whole": self.whole_at is not None, "fields": fields}


class Ledger:
    """All visits of late, and all executions of late, oldest first, with counts since the last reset."""

    __slots__ = ("_executions", "_numbers", "_visits", "executed_total", "seen_total")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything; what is under way is forgotten too."""
        self._numbers = itertools.count(1)
        self._visits: deque[Visit] = deque(maxlen=VISITS_MOST)
        self._executions: deque[Visit] = deque(maxlen=EXECUTIONS_MOST)
        self.seen_total = 0
        self.executed_total = 0

    def see(self, visit: Visit) -> None:
        """Take note of a request whose head has arrived, and number it."""
        visit.number = next(self._numbers)
        self._visits.append(visit)
        self.seen_total += 1

    def execute(self, visit: Visit, *, units: str) -> None:
        """Take note that a paid request is executed, for so many units."""
        visit.executed = True
        visit.units = units
        self._executions.append(visit)
        self.executed_total += 1

    def visits(self) -> Iterable[Visit]:
        """Return the requests that are remembered, oldest first."""
        return self._visits

    def executions(self) -> Iterable[Visit]:
        """Return the executions that are remembered, oldest first."""
        return self._executions
