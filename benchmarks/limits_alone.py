"""`python -m benchmarks.limits_alone`: what three limits take of one request by themselves, in microseconds.

Decided here: the best of several rounds, with the classes that a worker asks with, from the permit's taking to its
handing back, the fields of the answer included. What a cold cache adds on the way of a real request is not in it.
"""

from __future__ import annotations

import sys
import timeit
from typing import TYPE_CHECKING, Final

from gateway.limits.limiter import Limiter
from gateway.limits.wait_queue import WaitQueue
from gateway.policy.credential import Principal
from gateway.policy.quota import Limit, LimitSet
from gateway.state.memory.store import LocalStore, Quotas

if TYPE_CHECKING:
    from collections.abc import Callable

_CALLS: Final = 20_000
_ROUNDS: Final = 7
_QUOTA: Final = 1_000_000_000


class NotCounted:
    """Where nothing is counted: no limit here is in the shadow, no store away."""

    def count_shadowed(self, team: str, key: str, count: int) -> None:
        """Do nothing."""

    def count_degraded(self) -> None:
        """Do nothing."""


def microseconds() -> float:
    """Return the time of one permit, taken and handed back, under two limits of a key and one of its team."""
    limits = LimitSet(
        "bench",
        [
            Limit("submits", "key/bench", "requests", quota=_QUOTA, window=60.0),
            Limit("parallel", "key/bench", "concurrent-requests", quota=_QUOTA, window=0.0),
            Limit("pool", "team/bench", "requests", quota=_QUOTA, window=60.0),
        ],
    )
    principal = Principal("bench", "bench", None, None, None, paid=limits)
    home, room = LocalStore(Quotas()), WaitQueue(_later)
    limiter = Limiter(local=home, shared=None, on_loss="local", counts=NotCounted(), room=room, later=_later)

    def pass_through() -> None:
        permit = limiter.enter(principal, limits, lease="0123456789abcdef", address="", told=_told)
        permit.end(used=True)

    return 1e6 * min(timeit.repeat(pass_through, number=_CALLS, repeat=_ROUNDS)) / _CALLS


def _later(_seconds: float, _call: Callable[[], None]) -> None:
    """Stand where a loop would call back: nobody waits here."""


def _told() -> None:
    """Stand where an exchange would go on: nobody waits here."""


if __name__ == "__main__":
    sys.stdout.write(f"{microseconds():.3f}\n")
