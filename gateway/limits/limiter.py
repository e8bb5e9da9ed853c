"""Between admission and the origin: where a request gets its permit (permit.py) under one set of rules.

The decision: where the state is local the permit is there at once; where replicas share it the answer comes later. A
call beyond its quota may wait for its turn, up to the limit's `max_wait` (wait_queue.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from gateway.limits.permit import FREE, Permit
from gateway.policy.quota import Decision, Limit, LimitSet, quota_exceeded
from gateway.state.interface import Acquire, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.http.problem import Problem
    from gateway.limits.wait_queue import WaitQueue
    from gateway.policy.credential import Principal
    from gateway.state.memory.worker_budgets import Reservation

_MISSES: Final = LimitSet("", (Limit("failed-authentications", "address", "requests", quota=20, window=60.0),))
"""Failed authentications of one address."""


_READS: Final = LimitSet("", (Limit("account-reads", "account", "requests", quota=600, window=60.0),))
"""How often one key may read its account: cheap, and so often that no page which shows it meets the bound."""


class SharedStore(Store, Protocol):
    """A store that replicas share. `replicas`: how many, as of the last contact."""

    @property
    def is_up(self) -> bool:
        """Whether it answers; where not, it is not to be asked."""

    @property
    def replicas(self) -> int:
        """How many gateways share it, at least 1."""


class Counts(Protocol):
    """Where it is counted what became of limits."""

    def count_shadowed(self, team: str, key: str, count: int) -> None:
        """Count limits that would have refused a call if they were enforced."""

    def count_degraded(self) -> None:
        """Count a call that was judged without the shared store."""


class Limiter:
    """Gives out permits under one set of rules."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        *,
        local: Store,
        shared: SharedStore | None,
        on_loss: str,
        on_budget_loss: str = "closed",
        counts: Counts,
        room: WaitQueue,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """Take the homes of the state, and what stands in for the shared one while it is away (`on_state_loss`).

        `on_loss` says it of limits; `on_budget_loss` of budgets: `closed`, or else calls pass without a hold.
        """
        self.local: Final = local
        self.shared: Final = shared
        self.on_loss: Final = on_loss
        self.on_budget_loss: Final = on_budget_loss
        self.counts: Final = counts
        self.room: Final = room
        self.later: Final = later

    @property
    def replicas(self) -> int:
        """How many gateways share the limits."""
        return self.shared.replicas if self.shared is not None else 1

    def enter(  # noqa: PLR0913 (all that a permit says, by name)
        self,
        principal: Principal,
        limits: LimitSet,
        *,
        lease: str,
        address: str,
        hold: Reservation | None = None,
        told: Callable[[], None],
    ) -> Permit:
        """Return a request's permit; where it `waits`, `told` is called once when that is over.

        `lease` names the request among all others. `address`: what callers without a key are parted by, else empty.
        `hold`: what it is to hold of its budgets, if it is under any.
        """
        if not limits.limits and hold is None:
            return FREE
        permit = Permit(self, Acquire(lease, limits, address, hold), principal, told)
        permit.enter()
        return permit

    def miss(self, address: str) -> Problem | None:
        """Count a failed authentication; return the refusal of an address that has had too many.

        Always in this gateway's own memory: a stranger moves nothing that replicas share.
        """
        return self._refused(_MISSES, address, "Too many failed authentications from this address; try again later.")

    def read_account(self, counted_by: str) -> Problem | None:
        """Count a reading of a key's account; return the refusal of a key, or an address, that reads too often."""
        return self._refused(_READS, counted_by, "This account is read too often; try again later.")

    def _refused(self, limits: LimitSet, counted_by: str, detail: str) -> Problem | None:
        verdict = self.local.ask(Acquire("", limits, counted_by), _never)
        if verdict is None or verdict.granted:
            return None
        return replace(quota_exceeded(limits, verdict), detail=detail)


def _never(_verdict: Decision | None) -> None:
    """Stand where a local home wants to know whom to tell later: it never does."""
