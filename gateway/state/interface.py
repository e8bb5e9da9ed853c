"""The seam between admission and what is remembered between requests: what is asked, and what a home has to do.

Three homes keep one contract (tests/state/test_stores.py): the memory of one process, memory shared by the workers of
one machine, and Redis or Valkey for replicas. All or nothing: a call that one limit refuses takes nothing of any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.policy.budget import Budget
    from gateway.policy.quota import Decision, LimitSet
    from gateway.state.memory.worker_budgets import Reservation


class Acquire:
    """What one request needs: one unit of each of its limits, bytes later, and what a purchase holds of its budgets.

    `lease` names it among all requests of all replicas. `address` parts callers without a key from each other, and is
    empty for all others.
    """

    __slots__ = ("address", "hold", "lease", "limits", "spared")

    def __init__(self, lease: str, limits: LimitSet, address: str = "", hold: Reservation | None = None) -> None:
        self.lease: Final = lease
        self.limits: Final = limits
        self.address: Final = address
        self.hold: Final = hold
        self.spared: Sequence[int] = ()  # ranks of shadow limits of which nothing was taken


class Store(Protocol):
    """A home of the state. Nothing here raises for a store that is away."""

    def ask(self, ask: Acquire, told: Callable[[Decision | None], None]) -> Decision | None:
        """Judge and take in one step.

        Returns the verdict where it is known at once; else None, and `told` is called later, exactly once, with the
        verdict, or with None where the store did not answer in time.
        """

    def release(self, ask: Acquire) -> None:
        """Free the slots that a granted ask holds. Once for each; a second time does nothing."""

    def undo(self, ask: Acquire) -> None:
        """Give back all that a granted ask took, since nothing came of it: its slots, and a unit of each limit."""

    def charge(self, ask: Acquire, count: int) -> None:
        """Count so many bytes against the ask's limits in bytes."""


class BudgetStore(Protocol):
    """A home of what is spent and held of budgets; `Store.ask` takes the holds."""

    def record(self, hold: Reservation) -> None:
        """Take a granted ask's purchase as written down, in this turn: if this process dies it is charged."""

    def settle(self, hold: Reservation, spent_ns: int) -> None:
        """Turn what a granted ask holds of its budgets into what it cost, in nanodollars; 0: it cost nothing."""

    def bind(self, hold: Reservation) -> None:
        """Hand what a granted ask holds over to a queue job, which outlives this process.

        Its line is appended by now.
        """

    def settle_job(self, purses: Sequence[tuple[Budget, int]], *, freed_ns: int, spent_ns: int) -> None:
        """Free what a job holds, and count what it cost: in these budgets, each in the period that began then.

        Its line is appended by now.
        """
