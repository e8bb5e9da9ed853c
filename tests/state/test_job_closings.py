"""What a dead worker closed and its journal does not tell is open again; all else stays closed."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from gateway.policy.job import OPEN, RELEASED, SETTLED, Job
from gateway.state.memory.job_closings import JobClosings
from gateway.state.memory.jobs import JobTable, LocalJobs

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = Job("design", "web", "fal-ai/flux/dev", "a" * 32, 1, 25_000_000, 25_000_000, "megapixels", OPEN)
PID = os.getpid()


class Lines:
    """A journal as places: every closing appends a line of ten bytes."""

    def __init__(self) -> None:
        self.reach = self.end = 100

    def flush(self) -> None:
        """Write what was appended."""
        self.reach = self.end


class Scene:
    """One table, and the notes of one worker that has room for four."""

    def __init__(self) -> None:
        self.table, self.closings, self.lines = JobTable(sets=4), JobClosings(slots=2, closings=4), Lines()
        self.jobs = LocalJobs(self.table, lambda digest, state: self.closings.note(1, digest, state, self.lines))

    def close(self, name: str, state: int) -> None:
        """Close a job, and append its line."""
        told: list[Job | None] = []
        self.jobs.close_job(name, state, told.append)
        assert told[0] is not None
        self.lines.end += 10

    def die(self, *, closer: int = PID) -> None:
        """Settle with the worker as the supervisor does."""
        for digest, state in self.closings.conclude(1, self.lines.reach):
            self.table.reopen(digest, state, closer=closer)

    def state(self, name: str) -> int:
        """Return a job's state."""
        job = self.table.find(name)
        assert job is not None
        return job.state


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Return a scene with three open jobs."""
    made = Scene()
    for name in ("one", "two", "three"):
        made.table.remember(name, JOB)
    yield made
    made.closings.close()
    made.table.close()


def test_only_what_is_not_in_the_journal_is_opened_again(scene: Scene) -> None:
    """Each goes back to the state it had; a second look changes nothing."""
    scene.close("one", SETTLED)
    scene.lines.flush()
    scene.close("two", RELEASED)
    scene.lines.flush()
    scene.close("two", SETTLED)
    scene.close("three", SETTLED)
    for _ in range(2):
        scene.die()
        assert [scene.state(name) for name in ("one", "two", "three")] == [SETTLED, RELEASED, OPEN]


def test_what_another_process_closed_meanwhile_stays_closed(scene: Scene) -> None:
    """The dead one had noted it and died before it did it, or somebody was quicker after its death."""
    scene.close("one", RELEASED)
    scene.table.close_job("one", SETTLED, closer=PID + 1)
    scene.die()
    assert scene.state("one") == SETTLED


def test_notes_outlive_their_process(scene: Scene) -> None:
    """Killed between closing and writing."""
    child = os.fork()
    if not child:
        scene.jobs._pid = os.getpid()  # type: ignore[misc]
        scene.close("one", SETTLED)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert scene.state("one") == SETTLED
    scene.die(closer=child)
    assert scene.state("one") == OPEN


def test_the_oldest_notes_give_way(scene: Scene) -> None:
    """While the disk takes nothing; the latest are kept."""
    names = [f"job-{number}" for number in range(6)]
    for name in names:
        scene.table.remember(name, JOB)
        scene.close(name, SETTLED)
    scene.die()
    assert [scene.state(name) for name in names] == [SETTLED] * 2 + [OPEN] * 4
