"""One run on one site: callers and faults for so long, then the audit.

The decision it carries: callers stop when the last fault is over, so that what the audit waits for has no new cause.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.chaos.audit import Audit
from tests.chaos.callers import Caller
from tests.chaos.injector import Injector, Strike
from tests.chaos.observed import Observed
from tests.chaos.plan import FIRST_SECONDS, Draw, resources_of, schedule
from tests.chaos.site import Site

if TYPE_CHECKING:
    from pathlib import Path

LEAVE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class SiteForm:
    """What a site consists of, and how many callers it has."""

    name: str
    gateways: int
    workers: int
    is_shared: bool
    callers: int


FORMS: Final = (
    SiteForm("shared", gateways=2, workers=2, is_shared=True, callers=26),
    SiteForm("single", gateways=1, workers=3, is_shared=False, callers=14),
)


@dataclass(slots=True)
class Report:
    """What one run showed. `problems` are the violations, as sentences."""

    form: SiteForm
    problems: list[str] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    settled_seconds: dict[str, float] = field(default_factory=dict)
    executions: int = 0


def run_site(form: SiteForm, folder: Path, interrupted: threading.Event, draw: Draw) -> Report:
    """Run one site; return what it showed. Once it is interrupted it ends early, without an audit."""
    report = Report(form)
    resources = resources_of(gateways=form.gateways, is_shared=form.is_shared)
    faults = [each for each in schedule(draw.seed, draw.seconds, resources) if not draw.leaves_out(each.kind)]
    with Site(form.name, folder, gateways=form.gateways, workers=form.workers, is_shared=form.is_shared) as site:
        site.start()
        seen, stop = Observed(), threading.Event()
        callers = [Caller(site, number, draw, seen=seen) for number in range(form.callers)]
        threads = [threading.Thread(target=caller.run, args=(stop,), daemon=True) for caller in callers]
        for thread in threads:
            thread.start()
        injector = Injector(site, faults)
        memory: dict[str, int] = {}
        warm = threading.Timer(FIRST_SECONDS / 2, lambda: memory.update(_memory(site)))
        warm.start()
        try:
            injector.run(interrupted.is_set)
        finally:
            stop.set()
            warm.join()
        report.problems += _join(threads)
        if interrupted.is_set():
            return report
        audit = Audit(site, seen, injector.strikes, memory)
        report.problems += audit.run(injector.revive)
        report.strikes, report.settled_seconds = injector.strikes, audit.settled_seconds
        report.statuses = Counter((call.kind, call.status) for call in seen.calls)
        if report.problems:
            site.keep()
        report.executions = len(site.emulator.executions())
        if not report.executions:
            report.problems.append("no request was executed: this run shows nothing")
    return report


def _memory(site: Site) -> dict[str, int]:
    return {replica.name: replica.gateway.rss() for replica in site.replicas}


def _join(threads: list[threading.Thread]) -> list[str]:
    """Wait for the callers to end; return who does not."""
    deadline = time.monotonic() + LEAVE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    stuck = [thread.name for thread in threads if thread.is_alive()]
    return [f"{len(stuck)} callers did not end in {LEAVE_SECONDS:g} s"] if stuck else []
