"""Finds who submitted a job that this gateway's own table does not know: in the shared store, then in the ledger.

The decisions it carries:

* A job that neither knows did not come through here, and any key may ask for it. That is concluded from answers only:
  while one of the two cannot answer, it is not known, and the caller is asked to try again.
* A store has every job since it began to remember, or since it was connected to. What was submitted before that, by
  any gateway, must be in the ledger; while journals are not applied so far, the ledger is asked again, for some
  seconds. A store that is unavailable has none, so all until now must be in the ledger.
* What was found is kept for a while here and not in the table of jobs: that one decides about money, too.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.state.job_channel import (
    ANSWER_SECONDS,
    BEHIND,
    KNOWN,
    UNAVAILABLE,
    UNKNOWN,
    Question,
    read_answers,
    send_question,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.policy.job import FindJob, Isolation, Job
    from gateway.state.job_channel import JobChannel
    from gateway.state.redis.jobs import RedisJobs

    FoundJob = Callable[[Job | None, bool], None]
    Told = Callable[[int, Job | None], None]

CONFIRM_SECONDS: Final = 6.0
"""So long the ledger is asked again: twice what it takes after the store was emptied. Every gateway says each second
that it lives, and up to when the ledger has its lines; three looks at that are needed to know of all."""

CONFIRM_PAUSE_SECONDS: Final = 0.5

LONGEST_LAG_SECONDS: Final = 5.0
"""One gateway's own table has its latest jobs; the ledger must have the others."""

ROW_SECONDS: Final = 1.0
"""So long the answer to a submit waits at the most that the store does not take; a row takes 0.2 s."""

_ROW_PAUSE_SECONDS: Final = 0.05
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
        self._asked: dict[int, tuple[Told, asyncio.TimerHandle]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel.answered[worker], self._read)

    def find(self, job_id: str, since: float, told: Told) -> None:
        """Tell what is known (job_channel.py) of a job that was submitted before `since`, monotonic seconds."""
        number = next(self._numbers)
        question = Question(self._worker, number, monotonic(), since, job_id)
        if len(self._asked) >= MOST_ASKED or not send_question(self._channel, question):
            self._loop.call_soon(told, UNAVAILABLE, None)
            return
        self._asked[number] = told, self._loop.call_later(ANSWER_SECONDS, self._give_up, number)

    def await_row(self, job_id: str, done: Callable[[], None]) -> None:
        """Call back once the ledger has a job's row, or at the end of ROW_SECONDS; for one that is in the journal."""
        until = monotonic() + ROW_SECONDS

        def told(known: int, _: Job | None) -> None:
            if known == KNOWN or monotonic() >= until:
                done()
            else:
                self._loop.call_later(_ROW_PAUSE_SECONDS, self.find, job_id, math.inf, told)

        self.find(job_id, math.inf, told)

    def _read(self) -> None:
        for number, (known, job) in read_answers(self._channel.answered[self._worker]):
            waiting = self._asked.pop(number, None)
            if waiting is not None:
                told, timer = waiting
                timer.cancel()
                told(known, job)

    def _give_up(self, number: int) -> None:
        told, _ = self._asked.pop(number)
        told(UNAVAILABLE, None)

    def close(self) -> None:
        """Read no more answers."""
        self._loop.remove_reader(self._channel.answered[self._worker])


class JobSearch:
    """The search of one worker; `find` is a `FindJob`."""

    def __init__(self, *, store: RedisJobs | None, ledger: LedgerQuestions) -> None:
        """Take who can be asked; `store` None: replicas share none."""
        self._store = store
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._kept: dict[str, tuple[float, Job | None]] = {}
        self._waiting: dict[str, list[FoundJob]] = {}  # who else asks meanwhile

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
        waiting = self._waiting.get(job_id)
        if kept is not None and monotonic() < kept[0]:
            self._loop.call_soon(on_found, kept[1], True)  # noqa: FBT003 (call_soon's signature)
        elif waiting is not None:
            waiting.append(on_found)
        else:
            self._waiting[job_id] = [on_found]
            self._search(job_id)

    def _search(self, job_id: str) -> None:
        store, until = self._store, monotonic() + CONFIRM_SECONDS

        def answered(job: Job | None, is_answered: bool) -> None:  # noqa: FBT001 (the seam's shape)
            if job is not None:
                self._tell(job_id, job, is_answered=True)
            elif is_answered and store is not None:
                store.remembers_since(lambda since: self._ask_ledger(job_id, since, until=until))
            else:
                self._ask_ledger(job_id, monotonic(), until=until)

        if store is None:
            self._ask_ledger(job_id, monotonic() - LONGEST_LAG_SECONDS, until=0.0)
        else:
            store.find(job_id, answered)

    def _ask_ledger(self, job_id: str, since: float, *, until: float) -> None:
        """Ask, and where it may lack the job again, until `until`: monotonic seconds."""

        def told(known: int, job: Job | None) -> None:
            if known == BEHIND and monotonic() < until:
                self._loop.call_later(CONFIRM_PAUSE_SECONDS, lambda: self._ask_ledger(job_id, since, until=until))
                return
            if known in (KNOWN, UNKNOWN):
                self._keep(job_id, job)
            self._tell(job_id, job, is_answered=known in (KNOWN, UNKNOWN))

        self._ledger.find(job_id, since, told)

    def _tell(self, job_id: str, job: Job | None, *, is_answered: bool) -> None:
        for on_found in self._waiting.pop(job_id, ()):
            on_found(job, is_answered)

    def _keep(self, job_id: str, job: Job | None) -> None:
        if len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept.pop(job_id, None)
        self._kept[job_id] = monotonic() + (UNKNOWN_SECONDS if job is None else KNOWN_SECONDS), job
