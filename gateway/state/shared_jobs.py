"""Queue jobs where replicas share the state: the store decides about their money, this gateway's own table about whose.

The decision it carries: the table is a cache, for isolation and for a store that has lost its jobs. It never decides
about money, also not while the store is away: then a job's end waits, since another gateway may be told of it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.policy.job import Job
    from gateway.state.jobs import JobTable
    from gateway.state.redis_jobs import RedisJobs


class SharedJobs:
    """`Jobs` of the till over a shared store."""

    def __init__(self, jobs: RedisJobs, table: JobTable) -> None:
        """Take the store's jobs and this gateway's own."""
        self._jobs: Final = jobs
        self._table: Final = table

    def remember(self, job_id: str, job: Job) -> None:
        """Bind a job's id to its submitter, here and for all."""
        self._table.remember(job_id, job)
        self._jobs.remember(job_id, job)

    def close_job(self, job_id: str, state: int, told: Callable[[Job | None], None]) -> None:
        """Move a job's money up to a state; tell the job as it was before, None where that is not to be done."""

        def closed(job: Job | None) -> None:
            self._table.close_job(job_id, state)
            told(job)

        self._jobs.close(job_id, state, self._table.find(job_id), closed)
