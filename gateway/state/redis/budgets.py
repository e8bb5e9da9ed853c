"""Money in the store, as one worker process tells it: what it holds and what that came to, purse by purse.

The decision it carries: what happened in one turn of the loop is stated together, and everything that another could
still miss is said again each second and at each connection. So a purse that was lost has its holds back before it is
opened (`OPENING_SECONDS` in admin.py), and nothing is owed call by call while the store is away. With each
statement goes where the journal ends by then, so that it can be told whether the ledger has what was stated.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.policy.budget import Calendar
from gateway.state.redis.budget_counters import BudgetCounter, BudgetCounters
from gateway.state.redis.budget_scripts import STATE
from gateway.state.redis.commands import scripted
from gateway.state.redis.pipeline import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.policy.budget import Budget
    from gateway.state.memory.worker_budgets import Lines, Reservation
    from gateway.state.redis.commands import Command, Plan
    from gateway.state.redis.pipeline import Pipeline

SAY_AGAIN_SECONDS: Final = 1.0
_FACTS: Final = 3


class RedisBudgets:
    """`BudgetStore` of one worker."""

    def __init__(self, holder: bytes, wall: Callable[[], float], lines: Lines) -> None:
        """`holder` names this process among all of all gateways (`<gateway>:<pid>`), `lines` is its journal.

        `wall` gives seconds since the epoch.
        """
        self._holder: Final = holder
        self._lines: Final = lines
        self._wall = wall
        self._calendar = Calendar()
        self._registers = BudgetCounters()
        self._pipeline: Pipeline | None = None
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None

    # -- life -------------------------------------------------------------------------------------------------------

    def rise(self, pipeline: Pipeline) -> None:
        """State everything over a new connection, before the first ask on it: what asks were granted, too."""
        self._pipeline = pipeline
        for registers in self._registers.all():
            pipeline.add(self._statement(registers, tells_grants=True))
        self._say_again_later()

    def fall(self) -> None:
        """The connection is gone."""
        self._pipeline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave(self) -> None:
        """Say a last word: this process holds nothing any more."""
        pipeline = self._pipeline
        if pipeline is not None:
            for registers in self._registers.all():
                done = [register for register in registers if register.still_held == 0]
                if done:
                    pipeline.add(self._statement(done, is_last=True))
        self.fall()

    def _say_again_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SAY_AGAIN_SECONDS, self._say_again)

    def _say_again(self) -> None:
        self._say_again_later()
        if self._pipeline is not None:
            for registers in self._registers.alive(int(self._wall())):
                self._pipeline.add(self._statement(registers))

    # -- holds ------------------------------------------------------------------------------------------------------

    def question(self, plan: Plan, lease: bytes, hold: Reservation) -> Command:
        """Return the question of a request that is to hold something."""
        now = self._wall()
        return plan.ask_hold(lease, self._holder, hold.estimate_ns, calendar=self._calendar, now=now)

    def grant(self, hold: Reservation, told: Sequence[int]) -> None:
        """Take a grant, with start, edition and since of each purse."""
        hold.starts = self._registers.grant(hold, told)
        if self._registers.has_changed:  # the purse was filled in anew
            self.state_soon()

    def revoke(self, hold: Reservation, told: Sequence[int]) -> None:
        """Give a grant back that came too late: the request goes on without it, or was refused."""
        starts = self._registers.grant(hold, told)
        for budget, start in zip(hold.budgets, starts, strict=True):
            self._change(budget, start, freed=hold.estimate_ns)

    def record(self, hold: Reservation) -> None:
        """Do nothing: what is held counts as spent if this process dies, written down or not."""

    def settle(self, hold: Reservation, spent_ns: int) -> None:
        """Turn what is held into what it cost; what was admitted without a hold is counted all the same."""
        self._close(hold, spent=spent_ns)

    def bind(self, hold: Reservation) -> None:
        """Hand what is held over to a queue job."""
        self._close(hold, jobs=hold.estimate_ns)
        self.write()

    def _close(self, hold: Reservation, *, spent: int = 0, jobs: int = 0) -> None:
        freed = hold.estimate_ns if hold.starts else 0
        for budget, start in zip(hold.budgets, self._starts(hold), strict=True):
            self._change(budget, start, freed=freed, spent=spent, jobs=jobs)

    def settle_job(self, purses: Sequence[tuple[Budget, int]], *, freed_ns: int, spent_ns: int) -> None:
        """Free what a job holds, and count what it cost."""
        for budget, start in purses:
            self._change(budget, start, spent=spent_ns, jobs=-freed_ns)

    def _starts(self, hold: Reservation) -> tuple[int, ...]:
        if hold.starts:
            return hold.starts
        now = self._wall()
        return tuple([self._calendar.start(budget.period, now) for budget in hold.budgets])

    def _change(self, budget: Budget, start: int, *, freed: int = 0, spent: int = 0, jobs: int = 0) -> None:
        if freed or spent or jobs:
            self._registers.change(budget, start, int(self._wall()), freed=freed, spent=spent, jobs=jobs)
            self.state_soon()

    # -- statements -------------------------------------------------------------------------------------------------

    def _statement(
        self, registers: Sequence[BudgetCounter], *, tells_grants: bool = False, is_last: bool = False
    ) -> StateCall:
        place = self._lines.end
        return StateCall(self, registers, self._holder, place, tells_grants=tells_grants, is_last=is_last)

    def state_soon(self) -> None:
        """State what has changed also where no turn ends."""
        if not self._is_due and self._pipeline is not None:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self.write)

    def write(self) -> None:
        """State what has changed: at the end of each turn, before its lines are written.

        So the file ends between two statements whenever it is read, and whoever knows up to where the ledger has it
        knows which statements are counted there.
        """
        self._is_due = False
        pipeline = self._pipeline
        if pipeline is not None and self._registers.has_changed:
            for registers in self._registers.changed():
                pipeline.add(self._statement(registers))

    def told(self, registers: Sequence[BudgetCounter], versions: Sequence[int], facts: Sequence[int]) -> None:
        """Take what the store says of the purses that a statement was about."""
        is_known = True
        for place, register in enumerate(registers):
            at = place * _FACTS
            if self._registers.learn(register, facts[at], facts[at + 1], facts[at + 2]):
                register.acknowledged = max(register.acknowledged, versions[place])
            else:
                is_known = False
        if not is_known:
            self.state_soon()


class StateCall(Call):
    """A statement. What becomes of it is told by the next one."""

    __slots__ = ("_purses", "_registers", "_versions")

    def __init__(  # noqa: PLR0913 (what it states, and how)
        self,
        purses: RedisBudgets,
        registers: Sequence[BudgetCounter],
        holder: bytes,
        place: int,
        *,
        tells_grants: bool = False,
        is_last: bool = False,
    ) -> None:
        arguments = [holder, b"1" if is_last else b"0", b"%d" % place]
        for register in registers:
            arguments += _words(register, tells_grants=tells_grants)
        super().__init__(scripted(STATE, [register.key for register in registers], arguments))
        self._purses = purses
        self._registers = registers
        self._versions = [register.version for register in registers]

    def accept(self, answer: object) -> None:
        """Take what the store says."""
        if not isinstance(answer, bytes):
            raise ValueError("no text")  # noqa: TRY004 (what the store said is no value of this statement's)
        facts = [int(word) for word in answer.split()]
        if len(facts) != _FACTS * len(self._registers):
            raise ValueError("an answer to another statement")
        self._purses.told(self._registers, self._versions, facts)

    def late(self, answer: object) -> None:
        """Take it all the same."""
        self.accept(answer)


def _words(register: BudgetCounter, *, tells_grants: bool) -> list[bytes]:
    granted = b"%d" % register.granted if tells_grants and register.edition else b""
    sums = (register.net, register.spent, register.jobs)
    return [b"%d" % register.start, b"%d" % register.edition, granted, *[b"%d" % number for number in sums]]
