"""The queue's jobs: what each was asked, and where it stands at a given moment. Pure: the caller brings `now`.

Decision: a job's whole way is fixed at submission (when it starts, when it ends), so a state is computed and never
kept, and there is no timer that a test would have to wait for. Only a cancellation changes a job later.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.emulator.faults import NO_FAULTS, Faults

if TYPE_CHECKING:
    from collections.abc import Callable

JOBS_MOST: Final = 100_000
NAMESPACES: Final = frozenset({"workflows", "comfy"})
IN_QUEUE: Final = "IN_QUEUE"
IN_PROGRESS: Final = "IN_PROGRESS"
COMPLETED: Final = "COMPLETED"


def app_of(endpoint: str) -> str:
    """Return the part of an endpoint that the queue's URLs carry: owner and alias, behind a namespace if any."""
    segments = endpoint.split("/")
    return "/".join(segments[: 3 if segments[0] in NAMESPACES else 2])


@dataclass(slots=True)
class Job:
    """One queued run; times are seconds of a monotonic clock. Mutable for a cancellation, and for who watches it."""

    request_id: str
    endpoint: str
    app: str
    output: dict[str, object]
    starts_at: float
    ends_at: float
    units: str
    faults: Faults = NO_FAULTS
    cancelled: bool = False
    watchers: set[Callable[[], None]] = field(default_factory=set)

    def state(self, now: float) -> str:
        """Return where the job stands."""
        if self.cancelled or now >= self.ends_at:
            return COMPLETED
        return IN_PROGRESS if now >= self.starts_at else IN_QUEUE

    def seconds_to_change(self, now: float) -> float:
        """Return how long the present state will last; infinite when completed."""
        if self.state(now) == COMPLETED:
            return math.inf
        return (self.starts_at if now < self.starts_at else self.ends_at) - now

    def cancel(self, now: float, *, stops_running: bool) -> bool:
        """Take a wish to cancel; return False if there is nothing left to cancel.

        A job that is already running is stopped only if asked so: fal's runners may finish all the same, and bill.
        """
        state = self.state(now)
        if state == COMPLETED:
            return False
        if state == IN_QUEUE or stops_running:
            self.cancelled = True
            for wake in self.watchers:
                wake()
        return True

    def logs(self, now: float) -> list[tuple[float, str]]:
        """Return the lines that the job has written so far, each with its time."""
        written = ((self.starts_at, "Running inference"), (self.ends_at, "Inference done"))
        return [] if self.cancelled else [line for line in written if line[0] <= now]


class Jobs:
    """The jobs of late, by request id, bounded; the oldest is forgotten first."""

    __slots__ = ("_jobs", "_waiting")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget every job."""
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: OrderedDict[str, Job] = OrderedDict()

    def submit(self, job: Job) -> None:
        """Put a job into the queue."""
        self._jobs[job.request_id] = job
        self._waiting[job.request_id] = job
        if len(self._jobs) > JOBS_MOST:
            oldest, _ = self._jobs.popitem(last=False)
            self._waiting.pop(oldest, None)

    def find(self, request_id: str) -> Job | None:
        """Return the job of that id, if it is remembered."""
        return self._jobs.get(request_id)

    def position(self, request_id: str, now: float) -> int:
        """Return how many jobs are still in the queue before this one."""
        for begun in [job.request_id for job in self._waiting.values() if job.state(now) != IN_QUEUE]:
            del self._waiting[begun]
        return next((before for before, waiting in enumerate(self._waiting) if waiting == request_id), 0)
