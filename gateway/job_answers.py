"""The ledger process's answers to workers that ask who submitted a job (state/job_channel.py).

The decisions it carries:

* A thread with a connection of its own: the process's main thread may be in the midst of a large batch.
* That the ledger has no row of a job is an answer only while this gateway's journals are carried over up to now, or its
  own submits would be missing. Behind an outage of the database it takes a while longer: other gateways read their
  journals again within seconds, and not at once.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.ledger.faults import LedgerAwayError
from gateway.ledger.process import LONGEST_DELAY_SECONDS
from gateway.state.job_channel import read_questions, send_answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Ledger
    from gateway.policy.job import Job
    from gateway.state.job_channel import JobChannel

LONGEST_LAG_SECONDS: Final = 5.0
_AFTER_OUTAGE_SECONDS: Final = LONGEST_DELAY_SECONDS + 1.0


class JobAnswers:
    """The thread; `start` once the ledger process runs. It ends with the process."""

    def __init__(
        self, channel: JobChannel, ledger: Ledger, *, job_of: Callable[[Entry], Job], has_replicas: bool
    ) -> None:
        """Take a ledger of the thread's own. `has_replicas`: other gateways may write to the same database."""
        self._channel = channel
        self._ledger = ledger
        self._job_of = job_of
        self._has_replicas = has_replicas
        self._is_up = True
        self._worked_at = monotonic()
        self._carried_at = -LONGEST_LAG_SECONDS
        self._trusted_at = 0.0

    def start(self) -> None:
        """Answer from here on."""
        threading.Thread(target=self._answer_all, name="job-answers", daemon=True).start()

    def note(self, *, is_up: bool) -> None:
        """Take that the spool was carried over once more, or (not `is_up`) could not be; from the main thread."""
        now = monotonic()
        if is_up:
            self._carried_at = self._worked_at  # what was written before this turn began
            if not self._is_up and self._has_replicas:
                self._trusted_at = now + _AFTER_OUTAGE_SECONDS
        self._worked_at, self._is_up = now, is_up

    def _answer_all(self) -> None:
        while True:
            questions = read_questions(self._channel)
            if questions:
                now = monotonic()  # before the database is asked
                is_complete = now - self._carried_at < LONGEST_LAG_SECONDS and now >= self._trusted_at
                jobs = self._find({question.job_id for question in questions}) if self._is_up else None
                send_answers(self._channel, questions, jobs, is_complete=is_complete)

    def _find(self, job_ids: set[str]) -> dict[str, Job] | None:
        """Return the jobs that are known; None where the database does not answer."""
        try:
            entries = self._ledger.find_billed(sorted(job_ids))
        except LedgerAwayError:
            return None
        first: dict[str, Entry] = {}
        for entry in sorted(entries, key=_order):
            first.setdefault(str(entry.fal_request_id), entry)
        return {job_id: self._job_of(entry) for job_id, entry in first.items()}


def _order(entry: Entry) -> tuple[bool, int]:
    """Submits first, the earliest of them before all: who came first owns the job."""
    return entry.kind != "submit", entry.admitted_at_us
