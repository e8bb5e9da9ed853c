"""What callers saw: one record for each call, and what no caller may ever see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

BROKEN: Final = 0
"""In place of a status: the connection broke, or no answer came in time."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `status` is `BROKEN` without a whole head; `port` is the gateway's; times are monotonic."""

    kind: str
    key: str
    port: int
    status: int
    began_at: float
    ended_at: float
    request_id: str = ""
    error_type: str = ""


@dataclass(slots=True)
class Observed:
    """The calls of all callers of a site, appended as they end. `problems` are sentences."""

    calls: list[Call] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
