"""The signature of what the gateway posts to others, and the value that says of a budget what is posted. Pure.

The decision: what is signed is the time and the content together, so that a receiver can refuse what is old, and a
recorded warning cannot be played again. The id of a warning follows from what it says: two replicas that notice the
same share of the same budget in the same period send the same id.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from gateway.units import usd

HEADER: Final = "X-Gateway-Signature"


@dataclass(frozen=True, slots=True)
class BudgetWarning:
    """A share of a budget is reached. Money in nano-dollars; moments in seconds since the epoch, UTC.

    `scope` is `team` or `key` and `id` names it; `period` is day, week or month, begun at `period_start`; `share` is
    that of `warn_at`, 1 for the whole.
    """

    scope: str
    id: str
    period: str
    period_start: int
    share: float
    limit_ns: int
    spent_ns: int
    reserved_ns: int
    at: int


def sign(secret: bytes, content: bytes, *, at: int) -> str:
    """Return the value of the signature's field: `t=<seconds>,v1=<hex of HMAC-SHA256 over "t.content">`."""
    digest = hmac.new(secret, b"%d." % at + content, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def content_of(warning: BudgetWarning) -> bytes:
    """Return the JSON of a warning; dollars are decimal texts, moments are ISO times in UTC."""
    content = {
        "id": _identity(warning),
        "type": "budget.warning",
        "created_at": _iso(warning.at),
        "budget": {
            "scope": warning.scope,
            "id": warning.id,
            "period": warning.period,
            "period_start": _iso(warning.period_start),
            "share": warning.share,
            "limit_usd": usd(warning.limit_ns),
            "spent_usd": usd(warning.spent_ns),
            "reserved_usd": usd(warning.reserved_ns),
        },
    }
    return json.dumps(content).encode()


def _identity(warning: BudgetWarning) -> str:
    """Return the same id for the same news: also under a limit that was changed, the share is news again."""
    parts = (warning.scope, warning.id, warning.period, warning.period_start, warning.share, warning.limit_ns)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
