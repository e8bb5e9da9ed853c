"""Queue jobs in the store, as one worker process tells and asks of them.

The decisions it carries:

* Of all gateways one closes a job, the one that the store says so to. What could not be told or asked while the store
  was away is owed, up to a bound, and done on its return, once: a closing has a name of its own by which it may be
  asked for again. So a job's money waits for the store, and is never settled twice.
* A store that does not know a job may have lost it, and another gateway may have closed it. So it is asked again until
  its jobs were written to it again from the ledger, which takes a second or two. Only then does this gateway's own
  memory of the job count.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.state.redis import job_commands as redis_job_commands
from gateway.state.redis.calls import AgeCall, JobCall
from gateway.state.redis.job_commands import read_job
from gateway.state.redis.pipeline import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.policy.job import Job
    from gateway.state.redis.commands import Command
    from gateway.state.redis.pipeline import Pipeline

MOST_OWED: Final = 10_000
ABSENT_SECONDS: Final = 8.0
_ASK_AGAIN_SECONDS: Final = 1.0
_ABSENT: Final = b"?"


class RedisJobs:
    """The jobs of one worker."""

    def __init__(self, holder: bytes, *, absent_seconds: float = ABSENT_SECONDS) -> None:
        """`holder` names this process among all of all gateways; `absent_seconds`: how long a job may be not known."""
        self._holder: Final = holder
        self._absent_seconds: Final = absent_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._numbers = itertools.count(1)
        self._pipeline: Pipeline | None = None
        self._owed: dict[OwedCall, None] = {}  # in order
        self._connected_at = math.inf

    def rise(self, pipeline: Pipeline) -> None:
        """Do what is owed."""
        self._pipeline = pipeline
        self._connected_at = monotonic()
        self.pay()

    def fall(self) -> None:
        """The connection is gone."""
        self._pipeline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pay(self) -> None:
        """Do what is owed, where the store is there."""
        pipeline = self._pipeline
        if pipeline is not None:
            owed, self._owed = self._owed, {}
            for call in owed:
                pipeline.add(call.again())

    def find(self, job_id: str, told: Callable[[Job | None, bool], None]) -> None:
        """Tell `(job, True)`, `(None, True)` where it is not remembered, `(None, False)` where there is no answer."""
        if self._pipeline is None:
            asyncio.get_running_loop().call_soon(told, None, False)  # noqa: FBT003 (call_soon's signature)
        else:
            self._pipeline.add(JobCall(job_id, told))

    def remembers_since(self, told: Callable[[float], None]) -> None:
        """Tell since when the store has every job that was submitted, as far as is known here; monotonic seconds.

        Not before this connection was made: it may have been emptied, or restored to an earlier state.
        """
        asked_at = monotonic()

        def aged(seconds: float) -> None:
            told(max(asked_at - max(0.0, seconds - 1.0), self._connected_at))  # it counts begun seconds

        if self._pipeline is None:
            asyncio.get_running_loop().call_soon(told, asked_at)
        else:
            self._pipeline.add(AgeCall(aged))

    def remember(self, job_id: str, job: Job, told: Callable[[bool], None]) -> None:
        """Bind a job's id to its submitter for seven days; tell, once, whether the store has it by now."""
        call = BindCall(redis_job_commands.remember(job_id, job), self, told)
        if self._pipeline is not None:
            self._pipeline.add(call)
        else:
            call.fail()

    def close(self, job_id: str, state: int, known: Job | None, told: Callable[[Job | None], None]) -> None:
        """Move a job's money up to a state; tell the job as it was before, None where that is not to be done.

        Told once, when the store is there. `known`: the job where this gateway knows it, for a store that has lost it.
        """
        closer = b"%b/%d" % (self._holder, next(self._numbers))
        own = redis_job_commands.close(job_id, state, closer, known) if known is not None else None
        asked = redis_job_commands.close(job_id, state, closer, None)
        self._add(OwedCall(asked, self, told, own=own, until=monotonic() + self._absent_seconds))

    def ask_again(self, call: OwedCall) -> None:
        """Ask for a job again that the store did not know, in a moment."""
        self.owe(call)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_ASK_AGAIN_SECONDS, self._pay_later)

    def _pay_later(self) -> None:
        self._timer = None
        self.pay()

    def _add(self, call: OwedCall) -> None:
        if self._pipeline is not None:
            self._pipeline.add(call)
        else:
            self.owe(call)

    def owe(self, call: OwedCall) -> None:
        """Do a call again later; beyond the bound it is left to the ledger, which charges what nobody settles."""
        if len(self._owed) < MOST_OWED:
            self._owed[call] = None

    def forgive(self, call: OwedCall) -> bool:
        """Owe a call no longer; return whether it was owed."""
        return self._owed.pop(call, self) is None


class OwedCall(Call):
    """A call that is made until it is answered; `told` is told the job that it closed."""

    __slots__ = ("_jobs", "_own", "_told", "_until")

    def __init__(
        self,
        command: Command,
        jobs: RedisJobs,
        told: Callable[[Job | None], None] | None,
        *,
        own: Command | None = None,
        until: float = 0.0,
    ) -> None:
        """`own` is the command that brings this gateway's own memory along, for a store that does not know the job.

        `until` is when it may, by the monotonic clock.
        """
        super().__init__(command)
        self._jobs = jobs
        self._told = told
        self._own = own
        self._until = until

    def again(self) -> OwedCall:
        """Return the same call once more."""
        if self._own is not None and monotonic() >= self._until:
            return OwedCall(self._own, self._jobs, self._told)
        return OwedCall(self.command, self._jobs, self._told, own=self._own, until=self._until)

    def accept(self, answer: object) -> None:
        """Tell what it came to."""
        if answer == _ABSENT and (self._own is not None or monotonic() < self._until):
            self._jobs.ask_again(self)
        elif self._told is not None:
            asyncio.get_running_loop().call_soon(self._told, read_job(answer))

    def fail(self) -> None:
        """Do it again."""
        self._jobs.owe(self)

    def late(self, answer: object) -> None:
        """Take the answer after all, where it is not being asked for again."""
        if self._jobs.forgive(self):
            self.accept(answer)


class BindCall(OwedCall):
    """A job's binding, whose submitter waits for the first answer."""

    __slots__ = ("_bound",)

    def __init__(self, command: Command, jobs: RedisJobs, bound: Callable[[bool], None]) -> None:
        """`bound` is told once whether the store has taken it."""
        super().__init__(command, jobs, None)
        self._bound: Callable[[bool], None] | None = bound

    def accept(self, answer: object) -> None:
        """Tell that it has."""
        super().accept(answer)
        self._tell(is_bound=True)

    def fail(self) -> None:
        """Tell that it has not; it is bound later."""
        super().fail()
        self._tell(is_bound=False)

    def _tell(self, *, is_bound: bool) -> None:
        bound, self._bound = self._bound, None
        if bound is not None:
            asyncio.get_running_loop().call_soon(bound, is_bound)
