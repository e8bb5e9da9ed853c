"""The ledger process's answers to workers that ask who submitted a job (state/job_channel.py).

The decisions it carries:

* A thread with a connection of its own: the process's main thread may be in the midst of a large batch.
* That the ledger has no row of a job is an answer only about the time up to which all journals are in the ledger: those
  of this gateway, and those of every other that shares the database (ledger/watermarks.py). One whose ledger process
  hangs, or has not reached the database since it started, so keeps all others from taking its jobs for unknown ones.
  Which gateways there are is known up to a moment, too (living_gateways.py).
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

from gateway.ledger.errors import LedgerUnavailableError
from gateway.state.job_channel import read_questions, send_answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Ledger
    from gateway.money.living_gateways import Living
    from gateway.policy.job import Job
    from gateway.state.job_channel import JobChannel


class JobAnswers:
    """The thread; `start` once the ledger process runs. It ends with the process."""

    def __init__(
        self,
        channel: JobChannel,
        ledger: Ledger,
        *,
        job_of: Callable[[Entry], Job],
        living: Callable[[], Living] | None = None,
    ) -> None:
        """Take a ledger of the thread's own.

        `living` returns the gateways that are known to live and write to the same database; left out: there is one.
        """
        self._channel = channel
        self._ledger = ledger
        self._job_of = job_of
        self._living = living
        self._is_up = True
        self._worked_at = monotonic()
        self._carried_at = 0.0

    def start(self) -> None:
        """Answer from here on."""
        threading.Thread(target=self._answer_all, name="job-answers", daemon=True).start()

    def note(self, *, is_up: bool) -> None:
        """Take that the spool was carried over once more, or (not `is_up`) could not be; from the main thread."""
        if is_up:
            self._carried_at = self._worked_at  # what was written before this turn began
        self._worked_at, self._is_up = monotonic(), is_up

    def _answer_all(self) -> None:
        while True:
            questions = read_questions(self._channel)
            if questions:
                complete_until, jobs = self._look({question.job_id for question in questions})
                send_answers(self._channel, questions, jobs, complete_until=complete_until)

    def _look(self, job_ids: set[str]) -> tuple[float, dict[str, Job] | None]:
        """Return until when the ledger is complete, and the jobs that are known; None: the database does not answer."""
        if not self._is_up:
            return 0.0, None
        try:
            complete_until = self._complete_until()  # before the rows are read
            entries = self._ledger.find_billed(sorted(job_ids))
        except LedgerUnavailableError:
            return 0.0, None
        first: dict[str, Entry] = {}
        for entry in sorted(entries, key=_order):
            first.setdefault(str(entry.fal_request_id), entry)
        return complete_until, {job_id: self._job_of(entry) for job_id, entry in first.items()}

    def _complete_until(self) -> float:
        if self._living is None:
            return self._carried_at
        living, now = self._living(), monotonic()  # before the database is asked for its time
        behind = self._ledger.watermarks.seconds_behind(living.names)
        return 0.0 if behind is None else min(now - behind, living.known_until)


def _order(entry: Entry) -> tuple[bool, int]:
    """Submits first, the earliest of them before all: who came first owns the job."""
    return entry.kind != "submit", entry.admitted_at_us
