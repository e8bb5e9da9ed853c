"""What one request holds of the shared state, from before anything of it is sent until its last byte.

The decision: a permit is handed back whatever happens, and one that led to no request to the origin gives back all that
it took. While the shared store is away it decides as the policy says: by this gateway's share of the limits, by
nothing, or by a refusal.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.http.problem import Problem, refusal
from gateway.policy.budget import budget_exhausted
from gateway.policy.quota import CONCURRENT, Decision, LimitSet, granted_lines, quota_exceeded
from gateway.state.interface import Acquire, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.limits.limiter import Limiter
    from gateway.limits.wait_queue import WaitQueue
    from gateway.policy.credential import Principal

_COUNTED_AT_ONCE_BYTES: Final = 1_048_576  # of a long upload, so that others see it grow
_AWAY: Final = refusal("state_unavailable", "The store of limits is away; try again.", ((b"retry-after", b"1"),))
_NOT_KNOWN: Final = refusal(
    "state_unavailable", "What has been spent is not known yet; try again.", ((b"retry-after", b"1"),)
)


class Permit:
    """What one request holds of the shared state.

    While it `waits`, nothing may be sent; `told` is called when that is over. Then `problem` says whether it was
    refused, and `lines` are fields of its answer.
    """

    __slots__ = (
        "_ask",
        "_deadline",
        "_home",
        "_is_ended",
        "_is_entered",
        "_limiter",
        "_principal",
        "_told",
        "_uncounted",
        "counts_bytes",
        "is_asking",
        "line",
        "lines",
        "problem",
        "waits",
    )

    def __init__(
        self, limiter: Limiter | None, ask: Acquire | None, principal: Principal | None, told: Callable[[], None] | None
    ) -> None:
        self._limiter = limiter
        self._ask = ask
        self._principal = principal
        self._told = told
        self._home: Store | None = None  # who granted it
        self._deadline = -1.0  # until when it may wait for a slot; -1: it has not had to
        self._is_entered = False  # `enter` has returned, so `told` has to be called
        self._is_ended = False
        self._uncounted = 0
        self.counts_bytes = False
        self.is_asking = False
        self.line = ""  # where it waits for a slot
        self.waits = ask is not None
        self.problem: Problem | None = None
        self.lines: tuple[bytes, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether it waits no more."""
        return not self.waits

    # -- on its way in ------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Ask, or stand in the line where others wait already."""
        limiter, ask = self._limiter, self._ask
        if limiter is None or ask is None:
            return
        line = limiter.room.line_for(ask.limits)
        if line is not None:
            self.line, self._deadline = line, monotonic() + max(limit.max_wait for limit in ask.limits.limits)
            limiter.room.add(self)
        else:
            self._ask_store()
        self._is_entered = True

    def ask_again(self) -> None:
        """Ask once more for a slot (`Waiter`)."""
        self._ask_store()

    def _ask_store(self) -> None:
        limiter, ask = self._limiter, self._ask
        if limiter is None or ask is None:
            return
        shared = limiter.shared
        if shared is not None and shared.is_up:
            self.is_asking = True
            shared.ask(ask, self._on_shared_verdict)
        elif shared is not None:
            self._stand_in()
        else:
            self._judge(limiter.local, ask)

    def _judge(self, home: Store, ask: Acquire) -> None:
        verdict = home.ask(ask, _never)
        if verdict is not None:
            self._on_verdict(verdict, home)

    def _on_shared_verdict(self, verdict: Decision | None) -> None:
        limiter, ask = self._limiter, self._ask
        self.is_asking = False
        if limiter is None or ask is None:
            return
        if self._is_ended:
            if verdict is not None and verdict.granted and limiter.shared is not None:
                limiter.shared.undo(ask)
        elif verdict is None or limiter.shared is None:
            self._stand_in()
        else:
            self._on_verdict(verdict, limiter.shared)

    def _stand_in(self) -> None:
        """Decide without the shared store."""
        limiter, ask = self._limiter, self._ask
        if limiter is None or ask is None:
            return
        limiter.counts.count_degraded()
        if ask.hold is not None and limiter.on_budget_loss == "closed":
            self._decide(_AWAY)
        elif limiter.on_loss == "local":  # without the hold: what replicas have spent is known to the store alone
            self._ask = Acquire(ask.lease, ask.limits.share(limiter.replicas), ask.address)
            self._judge(limiter.local, self._ask)
        else:
            self._decide(None if limiter.on_loss == "open" else _AWAY)

    def _on_verdict(self, verdict: Decision, home: Store) -> None:
        limiter, ask, principal = self._limiter, self._ask, self._principal
        if limiter is None or ask is None or principal is None:
            return
        limits = ask.limits
        is_over = verdict.over_budget >= 0
        if not verdict.granted and not is_over and self._may_wait(limits, verdict, limiter.room):
            return  # it holds nothing that it could give back
        if verdict.shadowed:
            limiter.counts.count_shadowed(principal.team, principal.key, len(verdict.shadowed))
        if not verdict.granted:
            self._decide(_over_budget(ask, verdict) if is_over else quota_exceeded(limits, verdict))
            return
        self._home = home
        self.counts_bytes = limits.has_bytes
        self.lines = granted_lines(limits, verdict)
        if verdict.delay > 0.0:
            limiter.later(verdict.delay, self._let_in)
        else:
            self._decide(None)

    def _may_wait(self, limits: LimitSet, verdict: Decision, room: WaitQueue) -> bool:
        """Stay in line, or begin to, where a slot is all that is missing and there is time left."""
        limit = limits.limits[verdict.refused_by]
        if limit.kind != CONCURRENT or limit.max_wait <= 0.0:
            return False
        now = monotonic()
        if self._deadline < 0.0:
            self._deadline = now + limit.max_wait
        if self.line != limit.store_name:
            self.line = limit.store_name
            room.add(self)
        return now < self._deadline

    def _let_in(self) -> None:
        if not self._is_ended:
            self._decide(None)

    def _decide(self, problem: Problem | None) -> None:
        self.problem = problem
        self.waits = False
        if self._is_entered and self._told is not None:
            self._told()

    # -- on its way out -----------------------------------------------------------------------------------------------

    def count(self, size: int) -> None:
        """Count bytes of the request's content; only where `counts_bytes`."""
        self._uncounted += size
        if self._uncounted >= _COUNTED_AT_ONCE_BYTES:
            self._charge()

    def _charge(self) -> None:
        size, self._uncounted = self._uncounted, 0
        if self._home is not None and self._ask is not None and size:
            self._home.charge(self._ask, size)

    def end(self, *, used: bool) -> None:
        """Hand it back; `used`: a request was sent to the origin, or begun to be. A second call does nothing."""
        ask, home, limiter = self._ask, self._home, self._limiter
        if self._is_ended or ask is None or limiter is None:
            return
        self._is_ended = True
        self.waits = False
        self._told = None  # it leads to whoever holds this permit
        if home is None:
            return
        if self._uncounted:
            self._charge()
        if not used:
            home.undo(ask)
        elif ask.limits.has_leases:
            home.release(ask)
        if ask.limits.waits:
            limiter.room.slot_freed()


FREE: Final = Permit(None, None, None, None)
"""The permit of whoever has no limits."""


def _over_budget(ask: Acquire, verdict: Decision) -> Problem:
    if ask.hold is None or verdict.used_ns < 0:
        return _NOT_KNOWN
    budget = ask.hold.budgets[verdict.over_budget]
    start = verdict.begun_at
    return budget_exhausted(budget, start=start, used_ns=verdict.used_ns, estimate_ns=ask.hold.estimate_ns)


def _never(_verdict: Decision | None) -> None:
    """Stand where a local home wants to know whom to tell later: it never does."""
