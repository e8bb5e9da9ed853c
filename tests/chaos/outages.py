"""How long each fault keeps callers out: the longest time without a 200 for a caller under a budget, fault by fault.

The decision it carries: what is measured is one gateway, asked all the time by several callers that never try another
one, so the figure is what a deployment of one replica shows; a balancer before several hides most of it.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.chaos.faults import inject
from tests.chaos.injector import Injector
from tests.chaos.plan import Fault, resources_of
from tests.chaos.run import FORMS
from tests.chaos.site import Site
from tests.harness.client import RawClient
from tests.harness.messages import proxy_request
from tests.harness.waiting import until
from tests.harness.wire import Malformed, Truncated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chaos.run import SiteForm

PROBES: Final = 4
PROBE_PAUSE_SECONDS: Final = 0.1
PROBE_TIMEOUT_SECONDS: Final = 2.0
STEADY_SECONDS: Final = 3.0
"""Without a gap, and a fault is over."""
RECOVERY_SECONDS: Final = 120.0
LASTING_SECONDS: Final = 3.0
"""How long each fault that lasts is made to last."""
LEFT_OUT: Final = ("origin", "policy", "gateway-2")
KEY: Final = "design-web"


@dataclass(frozen=True, slots=True)
class Outage:
    """One fault, measured: how long it lasted, and the times without a 200 of each repetition."""

    site: str
    kind: str
    lasted_seconds: float
    gaps_seconds: tuple[float, ...]

    def line(self) -> str:
        """Return its row of a table in Markdown: the median, and the worst."""
        lasted = f"{self.lasted_seconds:g} s" if self.lasted_seconds else "a moment"
        median, worst = statistics.median(self.gaps_seconds), max(self.gaps_seconds)
        return f"| {self.site} | `{self.kind}` | {lasted} | {median:.1f} | {worst:.1f} |"


class Probes:
    """Callers that ask one gateway all the time; `successes` are the monotonic times of 200s."""

    def __init__(self, site: Site) -> None:
        self.successes: list[float] = []
        self._site = site
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(PROBES)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def longest_gap(self, since: float) -> float:
        """Return the longest time without a 200 since a moment; the last one before it counts as at that moment."""
        moments = [since, *sorted(moment for moment in list(self.successes) if moment > since), time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(moments))

    def is_steady(self, since: float) -> bool:
        """Say whether all has been well for a while, and began to be after a moment."""
        now = time.monotonic()
        return now - since >= STEADY_SECONDS and self.longest_gap(now - STEADY_SECONDS) < STEADY_SECONDS / 6

    def _ask(self, number: int) -> None:
        key, port = self._site.tenants.keys[KEY], self._site.replicas[0].port
        count = 0
        while not self._stop.wait(PROBE_PAUSE_SECONDS):
            count += 1
            request = proxy_request(key=key, body=b'{"prompt": "%d %d"}' % (number, count))
            try:
                with RawClient(port, timeout_seconds=PROBE_TIMEOUT_SECONDS) as client:
                    if client.ask(request).status == 200:
                        self.successes.append(time.monotonic())
            except (OSError, Truncated, Malformed):
                continue


def measure(folder: Path, *, repeats: int) -> Iterator[Outage]:
    """Yield the outage of every fault, site by site, each measured so often."""
    for form in FORMS:
        with Site(
            form.name, folder / form.name, gateways=form.gateways, workers=form.workers, is_shared=form.is_shared
        ) as site:
            site.start()
            probes = Probes(site)
            try:
                yield from _measure_site(site, form, probes, repeats=repeats)
            finally:
                probes.close()


def _measure_site(site: Site, form: SiteForm, probes: Probes, *, repeats: int) -> Iterator[Outage]:
    injector = Injector(site, ())
    resources = resources_of(gateways=form.gateways, is_shared=form.is_shared)
    for resource, kinds in resources.items():
        if resource in LEFT_OUT:
            continue
        for kind, bounds in kinds.items():
            lasts = LASTING_SECONDS if bounds.most_seconds else 0.0
            gaps = [_strike(injector, probes, Fault(0, kind, resource, lasts, turn)) for turn in range(repeats)]
            yield Outage(form.name, kind, lasts, tuple(gaps))


def _strike(injector: Injector, probes: Probes, fault: Fault) -> float:
    """Let one fault begin and end; return the longest time without a 200 until all is well again."""
    until(lambda: probes.is_steady(0), "all to be well before a fault", timeout_seconds=RECOVERY_SECONDS)
    began_at = time.monotonic()
    undo = inject(injector.site, fault)
    while time.monotonic() < began_at + fault.seconds:
        injector.revive()
        time.sleep(PROBE_PAUSE_SECONDS)  # the fault's own time
    if undo is not None:
        undo()
    ended_at = time.monotonic()

    def is_over() -> bool:
        injector.revive()
        return probes.is_steady(ended_at)

    until(is_over, f"the end of what {fault.kind} has done", timeout_seconds=RECOVERY_SECONDS)
    return probes.longest_gap(began_at)
