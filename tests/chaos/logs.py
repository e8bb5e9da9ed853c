"""The logs of a site: what they may not show, and how they agree with metrics and with what callers saw.

The decision it carries: a process that is killed takes with it the lines that its writer had not written, so answers
shortly before a kill may be missing from the log; nothing else may, and no request may be there twice.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.chaos.observed import Call
    from tests.harness.gateway import Metrics

LOST_SECONDS: Final = 3.0
"""Before a kill, or a full disk: what was answered then may be missing from the log."""
SHOWN: Final = 5


def leaks(paths: Iterable[Path], secrets: Mapping[str, str]) -> list[str]:
    """Return the secrets that a file shows."""
    found = []
    for path in paths:
        content = path.read_bytes()
        found += [f"{path.name} shows {name}" for name, secret in secrets.items() if secret.encode() in content]
    return found


def exchanges(path: Path) -> list[dict[str, Any]]:
    """Return the `exchange` events of a log."""
    return events_of(path, "exchange")


def events_of(path: Path, name: str) -> list[dict[str, Any]]:
    """Return a log's events of one name; a line that a kill tore is left out."""
    found = []
    for line in path.read_bytes().split(b"\n"):
        if f'"event":"{name}"'.encode() in line.replace(b'": "', b'":"'):
            try:
                found.append(json.loads(line))
            except ValueError:  # torn by a kill
                continue
    return found


def may_be_uncounted(event: Mapping[str, Any]) -> bool:
    """Say whether an exchange may be for a page beside the proxy, which is in no metric: its event does not say so."""
    return bool(event["class"] == "none" and event["method"] == "GET")


def repeated(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the requests that a log tells more than once."""
    twice = [name for name, count in Counter(event["request_id"] for event in events).items() if count > 1]
    return [f"{len(twice)} requests are in the log twice, such as {twice[:SHOWN]}"] if twice else []


def missing(calls: Iterable[Call], events: Iterable[Mapping[str, Any]], disturbed_at: list[float]) -> list[str]:
    """Return the answered calls that the log does not know, but for those shortly before a disturbance."""
    known = {event["request_id"] for event in events}
    moments = sorted(disturbed_at)
    lost = [
        call
        for call in calls
        if call.request_id and call.request_id not in known and not _is_near(call.ended_at, moments)
    ]
    return [f"{len(lost)} answered requests are not in the log, such as {lost[:SHOWN]}"] if lost else []


def uncounted(events: Iterable[Mapping[str, Any]], metrics: Metrics, *, kills: int) -> list[str]:
    """Return where one life's log and metrics differ. After kills, lines may be missing that were counted."""
    told, beside = Counter[str](), Counter[str]()
    for event in events:
        (beside if may_be_uncounted(event) else told)[str(event["status"])] += 1
    counted = Counter({status: int(value) for (status,), value in metrics.table("requests_total", "status").items()})
    more, fewer = counted - told - beside, told - counted
    dropped = metrics.value("log_lines_dropped_total")
    wrong = [f"told in the log and not counted: {dict(fewer)}"] if fewer else []
    if more and not kills and more.total() > dropped:
        wrong.append(f"counted and not told in the log: {dict(more)}, {dropped:g} lines were dropped")
    return wrong


def _is_near(moment: float, disturbances: list[float]) -> bool:
    """Say whether something was disturbed at this moment, or shortly after it."""
    place = bisect_left(disturbances, moment - LOST_SECONDS)
    return place < len(disturbances) and disturbances[place] <= moment + LOST_SECONDS
