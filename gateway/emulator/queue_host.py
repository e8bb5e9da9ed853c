"""queue.fal.run: submit, status (once or as a stream), result, cancel.

Decision: a job is found by its request id, and the URL's owner/alias must be the submitted one; faults that are meant
for a later step (`on=result`) travel with the job, since a client sends no field of its own with its polls.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Final

from gateway.emulator.answers import ERROR_TYPES, Answer, as_json, event, events, failure
from gateway.emulator.faults import NO_FAULTS, Faults
from gateway.emulator.handler import Reception
from gateway.emulator.jobs import COMPLETED, IN_QUEUE, Job, app_of
from gateway.emulator.models import paint
from gateway.emulator.paid import Paid, shown
from gateway.emulator.response_faults import expected_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

QUEUE_URL: Final = "https://queue.fal.run"
CANCELLED: Final = "client_cancelled"
CANCELLED_STATUS: Final = 499


def links(app: str, request_id: str) -> dict[str, object]:
    """Return the names under which a job can be found again."""
    stem = f"{QUEUE_URL}/{app}/requests/{request_id}"
    urls = {"response_url": stem, "status_url": f"{stem}/status", "cancel_url": f"{stem}/cancel"}
    return {"request_id": request_id, **urls}


class Submit(Paid):
    """`POST` /{endpoint}: a new job. A `fal_webhook` in the query is recorded with the request, and never called."""

    kind = "submit"
    step = "submit"

    def asked_faults(self) -> Faults:
        """Keep the whole line for the job; only what is not meant for a later step strikes now."""
        self.job_faults = NO_FAULTS
        self.job_faults = self.line_faults()
        return super().asked_faults()

    def is_refused(self, status: int) -> bool:
        """Return whether there is no job: after any submission that is not a success."""
        return status >= HTTPStatus.MULTIPLE_CHOICES

    def billing_faults(self) -> Faults:
        """Return the faults of the result, which is what costs."""
        result = self.job_faults
        return result if result.on == "result" else replace(result, status=None, redirect=None)

    def units_shown(self, _status: int) -> str | None:
        """Return nothing: a submission never tells units."""
        return None

    async def produce(self) -> Answer:
        """Return the job's names."""
        now = self.world.now()
        job = self._job(now)
        self.world.jobs.submit(job)
        position = self.world.jobs.position(job.request_id, now)
        return as_json(200, {"status": IN_QUEUE, **links(job.app, job.request_id), "queue_position": position})

    def _job(self, now: float) -> Job:
        visit, behaviour, faults = self.visit, self.world.behaviour, self.job_faults
        queued_ms = behaviour.queued_ms if faults.queued is None else faults.queued
        running_ms = behaviour.running_ms if faults.running is None else faults.running
        return Job(
            request_id=visit.request_id,
            endpoint=visit.endpoint,
            app=app_of(self.path_kwargs["asked"] + visit.endpoint),
            output=paint(self.inputs(), own_url=self.world.own_url, sha256=visit.sha256, length=visit.bytes),
            starts_at=now + queued_ms / 1000,
            ends_at=now + (queued_ms + running_ms) / 1000,
            units=self.usual_units(),
            faults=faults,
        )

    post = get = Paid.respond


class JobRequest(Reception):
    """A request about one job: /{owner}/{alias}/requests/{id} and what is below it."""

    unknown: ClassVar[dict[str, str]] = {"detail": "Request not found"}

    async def prepare(self) -> None:
        """Find the job before its faults are asked."""
        found = self.world.jobs.find(self.path_kwargs["request_id"])
        self.job = found if found is not None and found.app == self.path_kwargs["app"] else None
        self.visit.request_id = self.path_kwargs["request_id"]
        if self.job is not None:
            self.path_kwargs["endpoint"] = self.job.endpoint
        await super().prepare()

    def line_faults(self) -> Faults:
        """Return the faults of this request, or those that were submitted for this step."""
        own = super().line_faults()
        return self.job.faults if own == NO_FAULTS and self.job is not None and self.job.faults.on else own

    async def compose(self) -> Answer:
        """Answer 404 for a job that is not known."""
        if self.job is None:
            return as_json(404, self.unknown)
        return await self.report(self.job)

    async def report(self, job: Job) -> Answer:
        """Return the answer about a known job."""
        raise NotImplementedError


class Status(JobRequest):
    """`GET` …/status?logs=0|1: where the job stands."""

    step = "status"

    async def report(self, job: Job) -> Answer:
        """Return the state of this moment."""
        return as_json(200, self.state_of(job, skip_logs=0))

    def state_of(self, job: Job, *, skip_logs: int) -> dict[str, object]:
        """Return the state as fal writes it, without the first `skip_logs` lines of the log."""
        now = self.world.now()
        state = job.state(now)
        stated: dict[str, object] = {"status": state, **links(job.app, job.request_id)}
        if state == IN_QUEUE:
            return stated | {"queue_position": self.world.jobs.position(job.request_id, now)}
        stated["logs"] = self._logs(job, now)[skip_logs:] if self.get_query_argument("logs", "0") == "1" else []
        return stated | outcome_of(job) if state == COMPLETED else stated

    def _logs(self, job: Job, now: float) -> list[dict[str, str]]:
        to_wall = self.world.wall() - now
        return [
            {
                "message": message,
                "level": "INFO",
                "source": "USER",
                "timestamp": datetime.fromtimestamp(at + to_wall, UTC).isoformat(),
            }
            for at, message in job.logs(now)
        ]

    get = Reception.respond


class StatusStream(Status):
    """`GET` …/status/stream: an event for each state, until it is COMPLETED. Logs are told once each."""

    async def report(self, job: Job) -> Answer:
        """Return the stream of states."""
        return events(lambda: self._states(job))

    async def _states(self, job: Job) -> AsyncGenerator[bytes, None]:
        job.watchers.add(self.wire.nudge)
        try:
            told = 0
            while True:
                now = self.world.now()
                yield event(self.state_of(job, skip_logs=told))
                if job.state(now) == COMPLETED:
                    return
                told = len(job.logs(now))
                await self.wire.pause(job.seconds_to_change(self.world.now()))
        finally:
            job.watchers.discard(self.wire.nudge)

    get = Reception.respond


class Result(JobRequest):
    """`GET` …/requests/{id}: the output, with its units each time that it is fetched."""

    step = "result"

    async def report(self, job: Job) -> Answer:
        """Return the output, or why there is none."""
        if job.state(self.world.now()) != COMPLETED:
            return failure(400, detail="Request is still in progress")
        if job.cancelled:
            return as_json(CANCELLED_STATUS, {"detail": "Request was cancelled", "error_type": CANCELLED})
        return as_json(200, job.output)

    def units_shown(self, status: int) -> str | None:
        """Return the units of a job that has run."""
        job = self.job
        if job is None or job.cancelled or job.state(self.world.now()) != COMPLETED:
            return None
        units = job.faults.units if self.faults.units is None else self.faults.units
        return shown(replace(self.faults, units=units), status, usual=job.units)

    get = Reception.respond


class Cancel(JobRequest):
    """`PUT` …/cancel: a wish that holds while the job waits, and perhaps while it runs."""

    step = "cancel"
    unknown = {"status": "NOT_FOUND"}  # noqa: RUF012 - declared ClassVar above

    async def report(self, job: Job) -> Answer:
        """Cancel, if there is anything left to cancel."""
        if job.cancel(self.world.now(), stops_running=self.world.behaviour.cancel_stops_running):
            return as_json(202, {"status": "CANCELLATION_REQUESTED"})
        return as_json(400, {"status": "ALREADY_COMPLETED"})

    put = Reception.respond


def outcome_of(job: Job) -> dict[str, object]:
    """Return what a completed state says beyond the state: metrics, and the error of a job that failed."""
    if job.cancelled:
        return {"metrics": {"inference_time": None}, "error": "Request was cancelled", "error_type": CANCELLED}
    outcome: dict[str, object] = {"metrics": {"inference_time": round(job.ends_at - job.starts_at, 3)}}
    status = expected_status(job.faults) if job.faults.on == "result" else HTTPStatus.OK
    if status >= HTTPStatus.BAD_REQUEST:
        outcome |= {"error": f"The app answered {status}", "error_type": ERROR_TYPES.get(status, "bad_request")}
    return outcome
