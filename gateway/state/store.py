"""The seam between admission and what is remembered between requests: what is asked, and what a home has to do.

Three homes keep one contract (tests/state/test_stores.py): the memory of one process, memory shared by the workers of
one machine, and Redis or Valkey for replicas. All or nothing: a call that one limit refuses takes nothing of any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.policy.quota import LimitSet, Verdict


class Ask:
    """What one request needs: one unit of each of its limits, bytes later.

    `lease` names it among all requests of all replicas. `address` parts callers without a key from each other, and is
    empty for all others.
    """

    __slots__ = ("address", "lease", "limits")

    def __init__(self, lease: str, limits: LimitSet, address: str = "") -> None:
        self.lease: Final = lease
        self.limits: Final = limits
        self.address: Final = address


class Store(Protocol):
    """A home of the state. Nothing here raises for a store that is away."""

    def ask(self, ask: Ask, told: Callable[[Verdict | None], None]) -> Verdict | None:
        """Judge and take in one step.

        Returns the verdict where it is known at once; else None, and `told` is called later, exactly once, with the
        verdict, or with None where the store did not answer in time.
        """

    def release(self, ask: Ask) -> None:
        """Free the slots that a granted ask holds. Once for each; a second time does nothing."""

    def undo(self, ask: Ask) -> None:
        """Give back all that a granted ask took, since nothing came of it: its slots, and a unit of each limit."""

    def charge(self, ask: Ask, count: int) -> None:
        """Count so many bytes against the ask's limits in bytes."""
