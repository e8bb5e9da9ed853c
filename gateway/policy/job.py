"""Whose a queue job is: who may poll, fetch or cancel it, and which endpoint its calls belong to.

A job that did not come through here belongs to nobody that is known, and may be polled by any key. To all
others a foreign job answers as one that does not exist: whether an id is somebody's must not be learnt by asking.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from gateway.fal.calls import canonical_job_id
from gateway.http.problem import Problem, refusal

if TYPE_CHECKING:
    from gateway.policy.credential import Principal

Isolation = Literal["none", "team", "key"]

LONGEST_JOB_ID: Final = 128
_UNKNOWN: Final = refusal("job_unknown", "There is no request of this id for this key.")


OPEN: Final = 0
RELEASED: Final = 1
SETTLED: Final = 2
"""What has become of a job's money: held, given back (it was cancelled, or failed), spent. It only moves up."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was submitted here: by whom, to which endpoint, and what is held for it.

    `purchase` is the gateway's id of the submit, empty where nothing is known of its money. `picodollars` is the price
    of a `unit` when it was submitted (`admitted_at_us`, microseconds since the epoch), -1: without a price.
    """

    team: str
    key: str
    endpoint: str
    purchase: str = ""
    admitted_at_us: int = 0
    estimate_ns: int = 0
    picodollars: int = -1
    unit: str = ""
    state: int = OPEN


FindJob = Callable[[str, Callable[[Job | None, bool], None]], None]
"""Asks for a job that is not in this gateway's table; calls back later with the job (None: it is not known), and
whether that is an answer."""


def admit_job(job: Job | None, principal: Principal, *, isolation: Isolation) -> Problem | None:
    """Return the problem of asking for somebody else's job, None where it may be asked for."""
    if job is None or isolation == "none":
        return None
    same = job.team == principal.team and (isolation == "team" or job.key == principal.key)
    return None if same else _UNKNOWN


def submitted_id(content: bytes) -> str | None:
    """Return the request id in a submit's answer, None where it has none that could be asked for."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    found = answer.get("request_id") if isinstance(answer, dict) else None
    return canonical_job_id(found) if isinstance(found, str) and 0 < len(found) <= LONGEST_JOB_ID else None
