"""Rules of a queued job, on a clock that the test sets."""

from __future__ import annotations

import math

import pytest

from gateway.emulator.jobs import COMPLETED, IN_PROGRESS, IN_QUEUE, JOBS_MOST, Job, Jobs, app_of


def job(request_id: str = "1", *, starts_at: float = 10, ends_at: float = 20) -> Job:
    """Return a job that waits until 10 and runs until 20."""
    return Job(request_id, "a/b/c", "a/b", {}, starts_at, ends_at, "1")


@pytest.mark.parametrize(
    ("endpoint", "app"),
    [
        ("fal-ai/flux", "fal-ai/flux"),
        ("fal-ai/flux/dev/fast", "fal-ai/flux"),
        ("workflows/me/flow/deep", "workflows/me/flow"),
        ("comfy/me/flow", "comfy/me/flow"),
        ("emulate/status=500/fal-ai/flux", "emulate/status=500"),
    ],
)
def test_urls_of_a_job_carry_owner_and_alias(endpoint: str, app: str) -> None:
    """Queue URLs carry owner/alias only, behind one more segment in a namespace, as the clients cut them."""
    assert app_of(endpoint) == app


@pytest.mark.parametrize(
    ("now", "state", "left"), [(0, IN_QUEUE, 10), (10, IN_PROGRESS, 10), (20, COMPLETED, math.inf)]
)
def test_a_state_follows_from_the_time(now: float, state: str, left: float) -> None:
    """A job waits, runs and is completed at the times fixed when it was submitted."""
    assert (job().state(now), job().seconds_to_change(now)) == (state, left)


def test_a_waiting_job_can_be_cancelled_once() -> None:
    """A cancelled job is completed at once, wakes its watchers, and cannot be cancelled again."""
    waiting, woken = job(), []
    waiting.watchers.add(lambda: woken.append(True))
    assert waiting.cancel(0, stops_running=False)
    assert (waiting.state(0), woken) == (COMPLETED, [True])
    assert not waiting.cancel(0, stops_running=False)


@pytest.mark.parametrize(("stops", "state"), [(False, IN_PROGRESS), (True, COMPLETED)])
def test_a_running_job_is_stopped_only_if_asked(stops: bool, state: str) -> None:  # noqa: FBT001 - a table's column
    """A cancellation of a running job is accepted; whether the job then stops is a setting."""
    running = job()
    assert running.cancel(15, stops_running=stops)
    assert running.state(15) == state


def test_the_position_counts_who_still_waits() -> None:
    """A job's position is the number of jobs before it that have not begun."""
    jobs = Jobs()
    for request_id, starts_at in (("1", 5.0), ("2", 50.0), ("3", 50.0)):
        jobs.submit(job(request_id, starts_at=starts_at, ends_at=60))
    assert jobs.position("3", 0) == 2
    assert jobs.position("3", 6) == 1


def test_the_oldest_job_is_forgotten_first() -> None:
    """No more than 100,000 jobs are remembered."""
    jobs = Jobs()
    for number in range(JOBS_MOST + 1):
        jobs.submit(job(str(number)))
    assert jobs.find("0") is None
    assert jobs.find(str(JOBS_MOST)) is not None
