"""The table of submitted jobs: shared by processes, bounded, and never half-read."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.policy.credential import Principal
from gateway.policy.job import RELEASED, SETTLED, Job, admit_job, submitted_id
from gateway.state.memory.jobs import PLACES, JobTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOB = Job("design", "web", "fal-ai/flux/dev")


@pytest.fixture
def table() -> Iterator[JobTable]:
    """Return a small table."""
    made = JobTable(sets=16)
    yield made
    made.close()


def in_child(call: Callable[[], None]) -> None:
    """Run in a forked process, and wait for its good end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_job_is_found_by_its_id_alone(table: JobTable) -> None:
    """What was remembered comes back; an id that was not is nobody's."""
    table.remember("a", JOB)
    assert table.find("a") == JOB
    assert table.find("b") is None


def test_a_job_submitted_in_one_process_is_found_in_another(table: JobTable) -> None:
    """A poll may reach another worker than its submit did."""
    in_child(lambda: table.remember("from-the-child", JOB))
    assert table.find("from-the-child") == JOB


def test_a_second_submit_of_an_id_takes_the_place_of_the_first(table: JobTable) -> None:
    """An id has one owner: the last that fal gave it to."""
    table.remember("a", JOB)
    table.remember("a", Job("other", "key", "x/y"))
    assert table.find("a") == Job("other", "key", "x/y")


def test_a_full_set_forgets_its_oldest_job() -> None:
    """The table is bounded, and what goes first is what was submitted first."""
    table = JobTable(sets=1)
    for number in range(PLACES + 1):
        table.remember(f"job-{number}", JOB)
    assert table.find("job-0") is None
    assert all(table.find(f"job-{number}") == JOB for number in range(1, PLACES + 1))
    table.close()


def test_processes_that_write_at_once_lose_nothing(table: JobTable) -> None:
    """Four processes fill the same sets, and every job that still has a place reads whole."""

    def write(child: int) -> None:
        for number in range(200):
            table.remember(f"{child}-{number}", Job(f"team-{child}", f"key-{number}", "x/y"))

    pids = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                write(child)
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    found = {name: table.find(name) for name in (f"{child}-{number}" for child in range(4) for number in range(200))}
    kept = {name: job for name, job in found.items() if job is not None}
    assert len(kept) == 16 * PLACES
    assert all(job == Job(f"team-{name[0]}", f"key-{name[2:]}", "x/y") for name, job in kept.items())


def test_names_too_long_for_a_place_are_not_remembered(table: JobTable) -> None:
    """What does not fit is forgotten whole, never cut."""
    table.remember("a", Job("t" * 100, "k" * 63, "e" * 300))
    assert table.find("a") is None


@pytest.mark.parametrize(
    ("isolation", "team", "key", "admitted"),
    [
        ("none", "other", "other", True),
        ("team", "design", "mobile", True),
        ("team", "other", "web", False),
        ("key", "design", "web", True),
        ("key", "design", "mobile", False),
    ],
)
def test_isolation_says_who_may_ask_for_a_job(isolation: str, team: str, key: str, *, admitted: bool) -> None:
    """`isolate_jobs`: none, the submitter's team, or the submitter's key alone; to others it answers 404."""
    principal = Principal(key, team, None, None, None)
    problem = admit_job(JOB, principal, isolation=isolation)  # type: ignore[arg-type]
    assert (problem is None) is admitted
    assert problem is None or problem.status == 404


def test_a_job_that_did_not_come_through_here_is_anybodys() -> None:
    """Any request id that did not come through here may be polled by any key (docs/policy.md, Queue jobs)."""
    assert admit_job(None, Principal("a", "b", None, None, None), isolation="key") is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"request_id": "abc"}', "abc"),
        (b'{"request_id": 7}', None),
        (b'{"request_id": ""}', None),
        (b'["request_id"]', None),
        (b"not json", None),
        (b"[" * 100_000, None),
        (b'{"request_id": "%b"}' % (b"x" * 129), None),
    ],
)
def test_the_request_id_is_read_out_of_a_submits_answer(content: bytes, found: str | None) -> None:
    """Only a plain text of bounded length is an id; anything else binds nothing."""
    assert submitted_id(content) == found


def test_the_money_of_a_job_moves_up_once(table: JobTable) -> None:
    """Exactly one who settles a job gets it, as it was before; a cancelled job may still be settled, no other again."""
    job = Job("design", "web", "fal-ai/flux/dev", "a" * 32, 1_795_000_000_000_000, 25_000_000, 25_000_000_000, "image")
    table.remember("a", job)
    assert table.find("a") == job
    assert table.close_job("a", RELEASED) == job
    assert table.close_job("a", RELEASED) is None
    assert table.close_job("a", SETTLED) == replace(job, state=RELEASED)
    assert table.close_job("a", SETTLED) is None
    assert table.close_job("a", RELEASED) is None
    assert table.close_job("b", SETTLED) is None
    assert table.find("a") == replace(job, state=SETTLED)


def test_a_full_set_gives_up_settled_jobs_first() -> None:
    """A job for which money is held is forgotten only where all others of its set are such jobs."""
    one_set = JobTable(sets=1)
    for number in range(PLACES):
        one_set.remember(str(number), JOB)
    one_set.close_job("3", SETTLED)
    one_set.remember("new", JOB)
    assert one_set.find("3") is None
    assert all(one_set.find(str(number)) for number in range(PLACES) if number != 3)
    one_set.close()
