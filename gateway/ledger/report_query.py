"""What is asked of a report: a span of time, and the names to sum by, out of texts.

The decision: a module that knows no database, because the command line reads these before it loads one.
A span is [since, until): D is a moment, and a date is its first one, so that `--since 2026-11-01 --until 2026-12-01`
is November.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

Form = Literal["table", "csv", "json"]

NAMES: Final = ("team", "key", "endpoint", "day")
FORMS: Final = ("table", "csv", "json")


class Span(NamedTuple):
    """From `since` on, up to and without `until`; both in UTC."""

    since: datetime
    until: datetime


def moment(text: str) -> datetime:
    """Return the moment in UTC that an ISO date or time names; one without an offset is in UTC. ValueError else."""
    try:
        read = datetime.fromisoformat(text)
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):  # an offset may lead out of all years
        raise ValueError(f"{text!r} is no ISO date or time, such as 2026-11-01 or 2026-11-01T12:00:00Z") from None


def names(text: str) -> tuple[str, ...]:
    """Return the names of a `--by`; ValueError for one that is not known or stands there twice."""
    given = tuple(part.strip() for part in text.split(","))
    unknown = [name for name in given if name not in NAMES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(NAMES)}")
    if len(set(given)) < len(given):
        raise ValueError(f"{text!r} has a name twice")
    return given


def span_of(since: datetime | None, until: datetime | None, *, now: datetime) -> Span:
    """Return the span asked for; from the month's first to now where left out. ValueError where it is turned round."""
    end = until or now
    start = since or end.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if start > end:
        raise ValueError(f"the span begins at {iso(start)}, behind its end at {iso(end)}")
    return Span(start, end)


def iso(at: datetime) -> str:
    """Return a moment of UTC as text."""
    return at.isoformat().replace("+00:00", "Z")
