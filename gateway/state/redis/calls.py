"""The calls whose answers somebody waits for: a request's question, a job, a heartbeat.

The decision it carries: whoever waits is told on the loop's next step and not within the reader of the connection, so
that a bug of one request's cannot end the connection of all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.state.redis.commands import Plan, beat, free, read_answer
from gateway.state.redis.job_commands import find, memory_age, read_job
from gateway.state.redis.pipeline import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.policy.job import Job
    from gateway.policy.quota import Decision
    from gateway.state.interface import Acquire
    from gateway.state.redis.budgets import RedisBudgets
    from gateway.state.redis.leases import Leases


class AcquireCall(Call):
    """A request's question. A grant that comes too late is undone."""

    __slots__ = ("_leases", "_plan", "_purses", "_told", "_undo", "ask")

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        ask: Acquire,
        plan: Plan,
        told: Callable[[Decision | None], None],
        *,
        leases: Leases,
        purses: RedisBudgets,
        undo: Callable[[Acquire, Decision], None],
    ) -> None:
        lease, hold = ask.lease.encode(), ask.hold
        super().__init__(plan.ask(lease) if hold is None else purses.question(plan, lease, hold))
        self.ask: Final = ask
        self._purses = purses
        self._plan = plan
        self._told = told
        self._leases = leases
        self._undo = undo

    def accept(self, answer: object) -> None:
        """Hold the slots, and tell the verdict."""
        verdict, facts = read_answer(answer, self._plan.width, len(self._plan.budgets))
        if facts and self.ask.hold is not None:
            self._purses.grant(self.ask.hold, facts)
        if verdict.granted and self._plan.slots:
            self._leases.hold(self.ask.lease.encode(), self._taken(verdict))
        asyncio.get_running_loop().call_soon(self._told, verdict)

    def fail(self) -> None:
        """Tell that there is no answer."""
        asyncio.get_running_loop().call_soon(self._told, None)

    def late(self, answer: object) -> None:
        """Undo what was granted after all: the request was decided without the store."""
        verdict, facts = read_answer(answer, self._plan.width, len(self._plan.budgets))
        if facts and self.ask.hold is not None:
            self._purses.revoke(self.ask.hold, facts)
        if verdict.granted:
            self._leases.hold(self.ask.lease.encode(), self._taken(verdict))
            self._undo(self.ask, verdict)

    def lose(self) -> None:
        """Owe the slots that may have been taken."""
        self._leases.owe(self.ask.lease.encode(), [key for _, key in self._plan.slots])

    def _taken(self, verdict: Decision) -> list[bytes]:
        return [key for place, key in self._plan.slots if place not in verdict.shadowed]


class FreeCall(Call):
    """The return of slots of one limit. What is not known to have arrived is owed."""

    __slots__ = ("_key", "_leases", "_names")

    def __init__(self, key: bytes, names: Sequence[bytes], *, leases: Leases) -> None:
        super().__init__(free(key, names))
        self._key = key
        self._names = names
        self._leases = leases

    def fail(self) -> None:
        """Owe them; to free a slot twice does no harm."""
        for name in self._names:
            self._leases.owe(name, (self._key,))


class JobCall(Call):
    """The question whose a job is."""

    __slots__ = ("_told",)

    def __init__(self, job_id: str, told: Callable[[Job | None, bool], None]) -> None:
        super().__init__(find(job_id))
        self._told = told

    def accept(self, answer: object) -> None:
        """Tell the job, or that it is not known."""
        asyncio.get_running_loop().call_soon(self._told, read_job(answer), True)  # noqa: FBT003 (call_soon's signature)

    def fail(self) -> None:
        """Tell that there is no answer."""
        asyncio.get_running_loop().call_soon(self._told, None, False)  # noqa: FBT003 (call_soon's signature)


class AgeCall(Call):
    """The question for how many seconds the store has remembered jobs."""

    __slots__ = ("_told",)

    def __init__(self, told: Callable[[float], None]) -> None:
        super().__init__(memory_age())
        self._told = told

    def accept(self, answer: object) -> None:
        """Tell it."""
        if not isinstance(answer, int):
            raise ValueError("no number")  # noqa: TRY004 (what the store said is no value of this question's)
        asyncio.get_running_loop().call_soon(self._told, answer)

    def fail(self) -> None:
        """Tell that it is not known."""
        asyncio.get_running_loop().call_soon(self._told, -1)


class BeatCall(Call):
    """The heartbeat of this gateway."""

    __slots__ = ("_told",)

    def __init__(self, replica: bytes, told: Callable[[int], None]) -> None:
        super().__init__(beat(replica))
        self._told = told

    def accept(self, answer: object) -> None:
        """Tell how many gateways live."""
        self._told(living(answer))


class LastCall(Call):
    """The call behind which nothing is under way any more."""

    __slots__ = ("done",)

    def __init__(self, replica: bytes) -> None:
        super().__init__(beat(replica))
        self.done: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    def accept(self, answer: object) -> None:
        """All before it is answered."""
        living(answer)
        self._end()

    def fail(self) -> None:
        """All before it had its time."""
        self._end()

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


def living(answer: object) -> int:
    """Return how many gateways a heartbeat's answer counts; ValueError where it is no number."""
    if not isinstance(answer, int):
        raise ValueError("no number")  # noqa: TRY004 (what the store said is no value of this question's)
    return max(1, answer)
