"""A refusal or an origin failure as the caller reads it, and the one table that owns every status.

The body carries `message`, `detail` and `error_type` at once, because the JavaScript client shows the first, the
Python client the second, and programs branch on the third. The statuses are retry switches: the fal
clients repeat 502, 503, 504 and 429, and never 500, so whatever may already have been executed and billed ends as 500.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

Field = tuple[bytes, bytes]

STATUS_OF: Final = MappingProxyType(
    {
        "request_invalid": 400,
        "target_missing": 400,
        "credential_missing": 401,
        "credential_invalid": 401,
        "budget_exhausted": 402,
        "endpoint_not_allowed": 403,
        "endpoint_unpriced": 403,
        "realtime_not_budgeted": 403,
        "path_unknown": 404,
        "job_unknown": 404,
        "method_not_allowed": 405,
        "client_timeout": 408,
        "target_invalid": 412,
        "target_not_allowed": 412,
        "content_too_large": 413,
        "unsupported_media_type": 415,
        "upgrade_refused": 426,
        "quota_exceeded": 429,
        "head_too_large": 431,
        "gateway_error": 500,
        "upstream_unauthorized": 500,
        "dns_error": 502,
        "connection_refused": 502,
        "tls_error": 502,
        "draining": 503,
        "capacity_reached": 503,
        "state_unavailable": 503,
        "connection_timeout": 504,
    }
)
"""Status of every answer that does not depend on whether something was bought."""

STATUS_AFTER_SEND: Final = MappingProxyType({"origin_failed": (500, 502), "origin_timeout": (500, 504)})
"""Status once the request had been sent: (paid, free)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer of the gateway's own: why, in words and as a type, with which status and which extra fields."""

    error_type: str
    detail: str
    status: int
    fields: tuple[Field, ...] = ()


def refusal(error_type: str, detail: str, fields: tuple[Field, ...] = ()) -> Problem:
    """Return the problem of a known type; a type outside the table is a bug (KeyError)."""
    return Problem(error_type, detail, STATUS_OF[error_type], fields)


def origin_problem(error_type: str, detail: str, *, paid: bool) -> Problem:
    """Return the problem of an origin that failed, before or after the request was sent to it."""
    if error_type in STATUS_OF:
        return refusal(error_type, detail)
    return Problem(error_type, detail, STATUS_AFTER_SEND[error_type][0 if paid else 1])


def render(problem: Problem, request_id: str) -> bytes:
    """Return the JSON content of a problem."""
    return json.dumps(
        {
            "detail": problem.detail,
            "message": problem.detail,
            "error_type": problem.error_type,
            "request_id": request_id,
        }
    ).encode()
