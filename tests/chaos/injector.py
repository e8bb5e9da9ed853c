"""Lets a schedule run: each fault begins and ends in its time, and a gateway that has ended is started again.

The decision it carries: one thread for each site, which does everything in order, so that a run differs from another of
the same seed only by what the machine does to it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.chaos.faults import inject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.chaos.plan import Fault
    from tests.chaos.replica import Replica
    from tests.chaos.site import Site

TICK_SECONDS: Final = 0.05
OTHERWISE_ENDED: Final = (-9, 0)
"""Exit codes that a schedule brings about: SIGKILL, and SIGTERM's orderly end."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault as it happened: monotonic times, and what went wrong with it, empty where nothing did."""

    fault: Fault
    began_at: float
    ended_at: float
    trouble: str = ""


class Injector:
    """One site's schedule. `strikes` is what has happened so far."""

    def __init__(self, site: Site, schedule: Iterable[Fault]) -> None:
        self.site = site
        self._coming = list(schedule)
        self._open: list[tuple[float, Fault, float, Callable[[], object]]] = []
        self.strikes: list[Strike] = []

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Run the schedule to its end; every fault is over then. With `stop`, end early."""
        began_at = time.monotonic()
        while (self._coming or self._open) and not stop():
            now = time.monotonic()
            for due in [each for each in self._open if each[0] <= now]:
                self._end(due)
            while self._coming and began_at + self._coming[0].at_seconds <= now:
                self._begin(self._coming.pop(0))
            self.revive()
            time.sleep(TICK_SECONDS)
        self.finish()

    def finish(self) -> None:
        """End every fault that is open."""
        for each in list(self._open):
            self._end(each)
        self.revive()

    def revive(self) -> None:
        """Start every gateway again whose supervisor has ended."""
        for replica in self.site.replicas:
            if replica.has_ended():
                judge_end(replica)
                replica.start(self.site.tenants.policy())

    def _begin(self, fault: Fault) -> None:
        began_at = time.monotonic()
        try:
            undo = inject(self.site, fault)
        except Exception as trouble:  # noqa: BLE001 - a fault that could not be set is told in the table
            self.strikes.append(Strike(fault, began_at, time.monotonic(), repr(trouble)))
            return
        if undo is None:
            self.strikes.append(Strike(fault, began_at, time.monotonic()))
        else:
            self._open.append((began_at + fault.seconds, fault, began_at, undo))

    def _end(self, due: tuple[float, Fault, float, Callable[[], object]]) -> None:
        self._open.remove(due)
        _, fault, began_at, undo = due
        trouble = ""
        try:
            undo()
        except Exception as caught:  # noqa: BLE001 - told in the table
            trouble = f"not ended: {caught!r}"
        self.strikes.append(Strike(fault, began_at, time.monotonic(), trouble))


def judge_end(replica: Replica) -> None:
    """Take note of a supervisor that ended otherwise than it was made to."""
    code = replica.gateway.process.exit_code
    if code == os.EX_CONFIG and "policy.yaml" in replica.gateway.process.stderr():
        return  # it was started, and then the policy was broken before it had been read
    if code not in OTHERWISE_ENDED or not replica.kills_in_life:
        said = replica.gateway.process.stderr()[-600:]
        replica.problems.append(f"{replica.name} ended with {code} in its life {replica.life}: {said}")
