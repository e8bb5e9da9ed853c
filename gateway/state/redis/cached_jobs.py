"""Queue jobs where replicas share the state: the store decides about their money, this gateway's own table about whose.

The decisions it carries:

* The table is a cache, for isolation and for a store that has lost its jobs. It never decides about money, also not
  while the store is unavailable: then a job's end waits, since another gateway may be told of it too.
* A submitter gets its job's id once the store has the job, or else the ledger: every gateway asks one of the two before
  it takes a job for unknown. Where jobs are not isolated no gateway asks, and no submitter waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.policy.job import Job
    from gateway.state.memory.jobs import JobTable
    from gateway.state.redis.jobs import RedisJobs

    AwaitRow = Callable[[str, Callable[[], None]], None]


class CachedJobs:
    """`Jobs` of the accounting over a shared store."""

    def __init__(self, jobs: RedisJobs, table: JobTable, await_row: AwaitRow | None) -> None:
        """Take the store's jobs and this gateway's own; `await_row` calls back once the ledger has a job's row.

        None: jobs are not isolated.
        """
        self._jobs: Final = jobs
        self._table: Final = table
        self._await_row: Final = await_row

    def remember(self, job_id: str, job: Job, known: Callable[[], None]) -> bool:
        """Bind a job's id to its submitter, here and for all; True: `known` is called once others can know it."""
        await_row = self._await_row

        def bound(is_bound: bool) -> None:  # noqa: FBT001 (the seam's shape)
            if await_row is None:
                return
            if is_bound:
                known()
            else:
                await_row(job_id, known)

        self._table.remember(job_id, job)
        self._jobs.remember(job_id, job, bound)
        return await_row is not None

    def close_job(self, job_id: str, state: int, told: Callable[[Job | None], None]) -> None:
        """Move a job's money up to a state; tell the job as it was before, None where that is not to be done."""

        def closed(job: Job | None) -> None:
            self._table.close_job(job_id, state)
            told(job)

        self._jobs.close(job_id, state, self._table.find(job_id), closed)
