"""What happens when one side is lost: callers that leave, and connections that the origin closes."""

from __future__ import annotations

from typing import Final

from benchmarks.case import Case, Column, Entry, Figures, Stage
from benchmarks.load.leaving import NOTICE_SECONDS, PHASES, leave
from benchmarks.load.stale import fail_on_dying, fail_on_idle, fail_on_racing
from benchmarks.load.wrk import LoadError
from benchmarks.systems import ALL


def measure_leaving(stage: Stage) -> Figures:
    """Leave several times in each phase; the worst counts. NaN where the origin is not reached in that phase."""
    return {f"{phase}_seconds": _worst(stage, phase) for phase in PHASES}


def _worst(stage: Stage, phase: str) -> float:
    worst = 0.0
    for _ in range(stage.extent.leaves):
        try:
            worst = max(worst, leave(stage.running.route, stage.origin, phase))
        except LoadError:  # it collects the content first, say: there is nothing to be aborted
            return float("nan")
        if worst > NOTICE_SECONDS:
            break
    return worst


def measure_stale(stage: Stage) -> Figures:
    """POST over connections that are closed while idle, at any moment, and under the request."""
    route, posts = stage.running.route, stage.extent.stale_posts
    before = stage.origin.counters().twice
    return {
        "failed": fail_on_idle(route, stage.origin, stage.ids, posts=posts),
        "racing_failed": fail_on_racing(route, stage.ids, posts=posts),
        "dying_failed": fail_on_dying(route, stage.ids, posts=stage.extent.dying_posts),
        "twice": stage.origin.counters().twice - before,
        "survived": 0.0 if stage.running.has_ended else 1.0,
    }


LEAVING: Final = Case(
    key="leaving",
    title="A caller leaves: seconds until the origin sees it",
    how="free requests, the worst of 5; inf: not within 3 s; –: the origin is not reached before the content is whole",
    columns=(
        Column("upload_seconds", "during the upload", 4, better="less"),
        Column("waiting_seconds", "while waiting", 4, better="less"),
        Column("download_seconds", "during the download", 4, better="less"),
    ),
    entries=tuple(Entry(system.name, system, measure_leaving) for system in ALL),
    group="behaviour",
    repeats=False,
)
STALE: Final = Case(
    key="stale",
    title="Connections that the origin closes",
    how="POSTs: 400 each when the connection before is closed, 400 at any moment around the close (where the two cross,"
    " nobody can know), 50 that the origin reads and resets, whose callers must be told",
    columns=(
        Column("failed", "closed before: 5xx or cut"),
        Column("racing_failed", "closed meanwhile: 5xx or cut"),
        Column("dying_failed", "reset: 5xx or cut (as it should)"),
        Column("twice", "POSTs that the origin got twice"),
        Column("survived", "still running (1: yes)"),
    ),
    entries=tuple(Entry(system.name, system, measure_stale) for system in ALL),
    group="behaviour",
    repeats=False,
)
CASES: Final = (LEAVING, STALE)  # the second ends a system that does not survive it
