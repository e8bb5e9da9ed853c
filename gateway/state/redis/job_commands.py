"""Queue jobs as the store keeps them: what is sent, and how its answers read.

The decision it carries: a job is one text, its state the first character, so that a script can move the state up and
tell what it was before; who moved it stands behind the rest, and may ask again after an answer was lost.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from gateway.policy.job import SETTLED, Job
from gateway.state.redis.budget_scripts import CLOSE, REMEMBERS
from gateway.state.redis.commands import plain, scripted

if TYPE_CHECKING:
    from gateway.state.redis.commands import Command

JOB_SECONDS: Final = 7 * 86_400
_SINCE_KEY: Final = b"fgw:jobs:since"
_TEXTS: Final = 5
_FIELDS: Final = 8


def job_key(job_id: str) -> bytes:
    """Return where a job is kept."""
    return b"fgw:job:" + job_id.encode("utf-8", "surrogatepass")  # JSON can spell half a surrogate pair


def job_text(job: Job) -> bytes:
    """Return a job as the store keeps it."""
    texts = (job.team, job.key, job.endpoint, job.purchase, job.unit)
    return b"%d" % job.state + json.dumps((*texts, job.admitted_at_us, job.estimate_ns, job.picodollars)).encode()


def find(job_id: str) -> Command:
    """Return the question for a job."""
    return plain(b"GET", job_key(job_id))


def remember(job_id: str, job: Job) -> Command:
    """Return what binds a job's id to its submitter for seven days; said again it opens no job that was closed."""
    return plain(b"SET", job_key(job_id), job_text(job), b"EX", b"%d" % JOB_SECONDS, b"NX")


def close(job_id: str, state: int, closer: bytes, known: Job | None) -> Command:
    """Return what moves a job's money up to a state; `known` is the job where this gateway knows it."""
    return scripted(CLOSE, (job_key(job_id),), closing(state, closer, known))


def closing(state: int, closer: bytes, known: Job | None) -> tuple[bytes, ...]:
    """Return the arguments of CLOSE."""
    text = job_text(known) if known is not None else b""
    return (b"%d" % state, closer, text, b"%d" % JOB_SECONDS)


def memory_age() -> Command:
    """Return the question for how many seconds the store has lost no jobs, as far as it knows."""
    return scripted(REMEMBERS, (_SINCE_KEY,), ())


def read_job(answer: object) -> Job | None:
    """Return the job that an answer tells of; one that is written otherwise counts as not remembered.

    ValueError where the store answered something that is no answer to this question.
    """
    if answer is None:
        return None
    if not isinstance(answer, bytes):
        raise ValueError("no text")  # noqa: TRY004 (what the store said is no value of this question's)
    try:
        fields = json.loads(answer[1:].partition(b"\n")[0])
    except (ValueError, RecursionError):
        return None
    state = answer[0] - ord("0")
    if not isinstance(fields, list) or len(fields) != _FIELDS or not 0 <= state <= SETTLED:
        return None
    texts, numbers = fields[:_TEXTS], fields[_TEXTS:]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(number, int) for number in numbers):
        return None
    team, key, endpoint, purchase, unit = texts
    admitted_at_us, estimate_ns, picodollars = numbers
    return Job(team, key, endpoint, purchase, admitted_at_us, estimate_ns, picodollars, unit, state)
