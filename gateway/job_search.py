"""Finds who submitted a job that this gateway's own table does not know: in the shared store, then in the ledger.

The decisions it carries:

* A job that neither knows did not come through here, and any key may ask for it. That is concluded from answers only:
  while one of the two cannot answer, it is not known, and the caller is asked to try again.
* A store that is unavailable, or remembers nothing from before a moment ago, says nothing about a job that it does not
  have: it may have been submitted through another gateway just now. Such a job is in the ledger soon after (journals
  are read five times a second), so the ledger is asked again after a pause.
* What was found is kept for a while here and not in the table of jobs: that one decides about money, too.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.state.job_channel import ANSWER_SECONDS, Question, read_answers, send_question

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.desk import FindJob
    from gateway.policy.job import Isolation, Job
    from gateway.state.job_channel import JobChannel
    from gateway.state.redis_jobs import RedisJobs

    FoundJob = Callable[[Job | None, bool], None]

CONFIRM_SECONDS: Final = 2.0
"""Ten times as long as it takes until the ledger has what another gateway submitted."""

KNOWN_SECONDS: Final = 60.0
UNKNOWN_SECONDS: Final = 10.0
MOST_KEPT: Final = 10_000
MOST_ASKED: Final = 1_000


class LedgerQuestions:
    """One worker's questions to the ledger process; made within the running loop."""

    def __init__(self, channel: JobChannel, worker: int) -> None:
        """`worker` is this worker's place in the channel."""
        self._channel = channel
        self._worker = worker
        self._numbers = itertools.count(os.getpid() << 32)  # no number of an earlier worker in this place
        self._asked: dict[int, tuple[FoundJob, asyncio.TimerHandle]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel.answered[worker], self._read)

    def find(self, job_id: str, on_found: FoundJob) -> None:
        """Call back: `(job, True)`, `(None, True)` if the ledger knows none, `(None, False)` if it does not answer."""
        number = next(self._numbers)
        question = Question(self._worker, number, monotonic(), job_id)
        if len(self._asked) >= MOST_ASKED or not send_question(self._channel, question):
            self._loop.call_soon(on_found, None, False)  # noqa: FBT003 (call_soon's signature)
            return
        self._asked[number] = on_found, self._loop.call_later(ANSWER_SECONDS, self._give_up, number)

    def _read(self) -> None:
        for number, job, is_answered in read_answers(self._channel.answered[self._worker]):
            waiting = self._asked.pop(number, None)
            if waiting is not None:
                on_found, timer = waiting
                timer.cancel()
                on_found(job, is_answered)

    def _give_up(self, number: int) -> None:
        on_found, _ = self._asked.pop(number)
        on_found(None, False)  # noqa: FBT003 (the seam's shape)

    def close(self) -> None:
        """Read no more answers."""
        self._loop.remove_reader(self._channel.answered[self._worker])


class JobSearch:
    """The search of one worker; `find` is a `FindJob` of the desk."""

    def __init__(self, *, store: RedisJobs | None, ledger: LedgerQuestions) -> None:
        """Take who can be asked; `store` None: replicas share none."""
        self._store = store
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._kept: dict[str, tuple[float, Job | None]] = {}

    def finder(self, isolation: Isolation) -> FindJob | None:
        """Return who is asked; where no job is isolated only the store, for what a job costs."""
        if isolation != "none":
            return self.find
        return self._store.find if self._store is not None else None

    def close(self) -> None:
        """Ask no more."""
        self._ledger.close()

    def find(self, job_id: str, on_found: FoundJob) -> None:
        """Call back: `(job, True)`, `(None, True)` if it came from elsewhere, `(None, False)` if that is not known."""
        kept = self._kept.get(job_id)
        if kept is not None and monotonic() < kept[0]:
            self._loop.call_soon(on_found, kept[1], True)  # noqa: FBT003 (call_soon's signature)
        elif self._store is None:
            self._ask_ledger(job_id, on_found, is_final=True)
        else:
            self._ask_store(self._store, job_id, on_found)

    def _ask_store(self, store: RedisJobs, job_id: str, on_found: FoundJob) -> None:
        def answered(job: Job | None, is_answered: bool) -> None:  # noqa: FBT001 (the seam's shape)
            if job is not None:
                on_found(job, True)  # noqa: FBT003 (the seam's shape)
            elif is_answered:
                store.has_lost_none(lambda sound: self._ask_ledger(job_id, on_found, is_final=sound))
            else:
                self._ask_ledger(job_id, on_found, is_final=False)

        store.find(job_id, answered)

    def _ask_ledger(self, job_id: str, on_found: FoundJob, *, is_final: bool) -> None:
        def answered(job: Job | None, is_answered: bool) -> None:  # noqa: FBT001 (the seam's shape)
            if job is None and is_answered and not is_final:
                self._loop.call_later(CONFIRM_SECONDS, lambda: self._ask_ledger(job_id, on_found, is_final=True))
                return
            if is_answered:
                self._keep(job_id, job)
            on_found(job, is_answered)

        self._ledger.find(job_id, answered)

    def _keep(self, job_id: str, job: Job | None) -> None:
        if len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept.pop(job_id, None)
        self._kept[job_id] = monotonic() + (UNKNOWN_SECONDS if job is None else KNOWN_SECONDS), job
