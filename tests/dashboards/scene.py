"""The scene that the dashboards are shown: a gateway of two workers before the emulator, watched by a real Prometheus.

The decision: one scene for all tests of it, played once: everything that can happen to a request happens, then fal's
bill corrects the ledger, the gateway is started anew, and more happens. What the ledger held at two moments of quiet
in between is written down, so that what dashboards say was spent can be held against it.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from gateway.ledger.entry import HELD
from tests.dashboards.acts import a_little, bustle, everything, policy, reload_well_and_badly
from tests.dashboards.interpolation import Window
from tests.harness.emulator import Emulator
from tests.harness.prometheus import Prometheus
from tests.harness.waiting import until
from tests.money.market import PRICES, Market

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ledger.entry import Entry

SCRAPE_SECONDS: Final = 1.0
LEAST_SECONDS: Final = 30.0
"""A bar over time is 10 s wide and shows what rose within: after three of them none is left that began before."""

QUIET_SECONDS: Final = 30.0
JOB: Final = "fal-gateway"


@dataclass(frozen=True, slots=True)
class Quiet:
    """A moment (seconds since the epoch) at which nothing was under way, and what the ledger held then."""

    moment: float
    entries: tuple[Entry, ...]

    @property
    def spent_ns(self) -> int:
        """All that was charged by then, in nano-dollars."""
        return sum(entry.cost_ns or 0 for entry in self.entries if entry.status != HELD)

    def by(self, name: str) -> dict[str, int]:
        """Return what was charged by then, by one of the rows' columns."""
        sums: dict[str, int] = {}
        for entry in self.entries:
            if entry.status != HELD and entry.cost_ns:
                value = getattr(entry, name)
                sums[value] = sums.get(value, 0) + entry.cost_ns
        return sums


class Scene:
    """Emulator, gateway and Prometheus, started and played; `close()` ends them."""

    def __init__(self, folder: Path, *, bustle_seconds: float = 0) -> None:
        """Play the scene; for a picture, with so many seconds of usual traffic at its end."""
        with ExitStack() as stack:
            self.prometheus = stack.enter_context(Prometheus(folder / "prometheus", scrape_seconds=SCRAPE_SECONDS))
            self.fal = stack.enter_context(Emulator(folder / "fal"))
            self.fal.settings(prices=PRICES)
            env = {"FALGW_MAX_BODY_BYTES": "1000000", "FAL_ADMIN_KEY": "admin:key"}
            market = Market(folder / "market", self.fal.overrides, policy(), workers=2, **env)
            self.market = stack.enter_context(market)
            self.prometheus.wait_ready().scrape(self._jobs())
            self._wait_scraped()
            self.began = time.time()
            self.first, self.second, self.last = self._play(bustle_seconds)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything; harmless when done twice."""
        self._stack.close()

    def window(self, since: float | None = None, until: float | None = None) -> Window:
        """Return the time from one moment to another: where left out, from the beginning to the last quiet one."""
        end = self.last.moment if until is None else until
        return Window(end - math.ceil(end - (self.began if since is None else since)), end, SCRAPE_SECONDS)

    def _play(self, bustle_seconds: float) -> tuple[Quiet, Quiet, Quiet]:
        everything(self.market)
        first = self._quiet()
        self.market.command("reconcile", "--format", "json", FAL_ADMIN_KEY="admin:key")
        second = self._quiet()
        self.market.restart()
        self.prometheus.scrape(self._jobs())
        self._wait_scraped()
        reload_well_and_badly(self.market)
        bustle(self.market, bustle_seconds)
        self.busy = time.time()
        until(lambda: time.time() > self.began + LEAST_SECONDS, "whole bars", timeout_seconds=LEAST_SECONDS + 1)
        last = self._quiet()
        a_little(self.market, paid=False)
        return first, second, replace(last, moment=self._wait_scraped())

    def _jobs(self) -> dict[str, list[str]]:
        return {JOB: [self.market.gateway.ops.removeprefix("http://")]}

    def _quiet(self) -> Quiet:
        """Buy a little, and wait until nothing moves: no hold, the same rows two scrapes later, and metrics as they."""
        a_little(self.market)
        entries = until(self._unmoved, "a ledger in which nothing moves", timeout_seconds=QUIET_SECONDS)
        return Quiet(time.time(), entries)

    def _unmoved(self) -> tuple[Entry, ...]:
        before = self._settled()
        if before:
            self._wait_scraped()
        return before if before == self._settled() else ()

    def _settled(self) -> tuple[Entry, ...]:
        """Return the ledger's rows, if none is held and the metrics show them; else none."""
        entries = tuple(self.market.books.entries())
        is_open = any(entry.status == HELD for entry in entries)
        return () if is_open or self._shown_ns() != Quiet(0, entries).spent_ns else entries

    def _shown_ns(self) -> int:
        metrics = self.market.gateway.metrics()
        return round(metrics.value("ledger_cost_usd") * 10**9) if "ledger_cost_usd{" in metrics.text else 0

    def _wait_scraped(self) -> float:
        """Wait until Prometheus has scraped this gateway twice more (once might have begun before).

        Return the moment of the last time: on a busy machine a later one may fail, and show nothing.
        """
        target = self.market.gateway.ops.removeprefix("http://")
        series = f'fal_gateway_build_info{{instance="{target}"}}'
        before = self._number(f"count_over_time({series}[1h])")
        enough = f"count_over_time({series}[1h]) >= {before + 2}"
        return until(
            lambda: self._number(f"timestamp({series}) and {enough}"), "two scrapes", timeout_seconds=QUIET_SECONDS
        )

    def _number(self, query: str) -> float:
        """Return what a query gives just now; 0 where it gives nothing."""
        found = self.prometheus.at(query, time.time())
        return float(found[0]["value"][1]) if found else 0.0
