"""The goals of the data path, each with what a run measured and whether it was reached.

Ratios are of medians out of the same run; where a goal bounds the worst (memory, delays, repeats), the highest value of
all rounds counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.cases.profile import METERING
from benchmarks.cases.quotas import BUDGETED, LIMITED, LIMITS, MONEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.results import Results

_GATEWAY: Final = "gateway"
_AT_ONCE: Final = 8
_WORKERS: Final = 2
_CORES_FOR_TWO: Final = 4


@dataclass(frozen=True, slots=True)
class Check:
    """A goal: `value` out of the results must be at least (or at most) `limit`. `form` shows both."""

    figure: str
    value: Callable[[Results], float | None]
    limit: float
    form: str = "{:.2f}"
    at_least: bool = False
    strictly: bool = False

    @property
    def aim(self) -> str:
        """The goal in words."""
        sign = {(True, False): "≥", (True, True): ">", (False, False): "≤", (False, True): "<"}
        return f"{sign[self.at_least, self.strictly]} {self.form.format(self.limit)}"

    def is_reached(self, value: float) -> bool:
        """Say whether a value meets the goal; NaN never does."""
        if self.strictly and value == self.limit:
            return False
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal as a run met it. `reached` is None where it was not measured."""

    figure: str
    aim: str
    measured: str
    reached: bool | None


def verdicts(results: Results) -> tuple[Verdict, ...]:
    """Judge a run by every goal."""
    return tuple(_verdict(check, check.value(results)) for check in CHECKS)


def _verdict(check: Check, value: float | None) -> Verdict:
    if value is None:
        return Verdict(check.figure, check.aim, "not measured", None)
    shown = "never" if math.isinf(value) else check.form.format(value)
    return Verdict(check.figure, check.aim, shown, check.is_reached(value))


def _ratio(results: Results, case: str, key: str, *, peer: str) -> float | None:
    ours, theirs = (results.median(case, label, key) for label in (_GATEWAY, peer))
    return ours / theirs if ours is not None and theirs else None


def _most(results: Results, case: str, key: str, *, each: int = 1, label: str = _GATEWAY) -> float | None:
    value = results.most(case, label, key)
    return None if value is None else value / each


def _median(results: Results, case: str, key: str) -> float | None:
    return results.median(case, _GATEWAY, key)


def _worst_transfer(results: Results) -> float | None:
    values = [_most(results, case, "growth_mb", each=_AT_ONCE) for case in ("up", "down", "down-chunked")]
    return max((value for value in values if value is not None), default=None)


def _worst_leaving(results: Results) -> float | None:
    values = [_most(results, "leaving", f"{phase}_seconds") for phase in ("upload", "waiting", "download")]
    return max((value for value in values if value is not None), default=None)


def _two_workers(results: Results) -> float | None:
    """Compare requests a second where there are cores for two workers beside the load, else what CPU time allows.

    That is twice one worker's requests, less what each costs more; never more than twice, whatever the noise says.
    """
    has_cores = int(results.machine["cores"]) >= _CORES_FOR_TWO
    key = "per_second" if has_cores else "cpu_us"
    one, two = (results.median("workers", label, key) for label in ("1 worker", "2 workers"))
    if not one or not two:
        return None
    return two / one if has_cores else min(_WORKERS, _WORKERS * one / two)


def _alone(results: Results, *, label: str, key: str) -> float | None:
    return results.median("quotas", label, key)


_per_cpu_second = partial(_ratio, case="posts-64", key="per_cpu_second")
_up, _down = (partial(_ratio, case=case, key="mb_per_cpu_second") for case in ("up", "down"))

CHECKS: Final = (
    Check("small POST, per CPU-second, × aiohttp", partial(_per_cpu_second, peer="aiohttp"), 3, at_least=True),
    Check(
        "small POST, per CPU-second, × Express reference", partial(_per_cpu_second, peer="express"), 8, at_least=True
    ),
    Check("small POST, per CPU-second, × nginx", partial(_per_cpu_second, peer="nginx"), 0.25, at_least=True),
    Check("added p50 at one connection, ms", partial(_median, case="posts-1", key="added_p50_ms"), 0.4, form="{:.3f}"),
    Check(
        "added p50 at one connection, × nginx", partial(_ratio, case="posts-1", key="added_p50_ms", peer="nginx"), 1.6
    ),
    Check("50 MB up, per CPU-second, × aiohttp", partial(_up, peer="aiohttp"), 1.0, at_least=True),
    Check("50 MB down, per CPU-second, × aiohttp", partial(_down, peer="aiohttp"), 1.4, at_least=True),
    Check("50 MB down, per CPU-second, × nginx", partial(_down, peer="nginx"), 1.0, at_least=True, strictly=True),
    Check("memory growth for each 50 MB transfer, MB", _worst_transfer, 0.5),
    Check("memory growth of 200 readers at 1 KB/s, MB", partial(_most, case="readers", key="growth_mb"), 8, "{:.1f}"),
    Check("metrics and log, % of CPU", partial(_median, case="metering", key=METERING), 10, "{:.1f}"),
    Check("three limits, % of CPU", partial(_alone, label=LIMITED, key=LIMITS), 3, "{:.1f}"),
    Check("two budgets and a price, % of CPU", partial(_alone, label=BUDGETED, key=MONEY), 5, "{:.1f}"),
    Check("two workers on cores of their own, × one", _two_workers, 1.8, at_least=True),
    Check("stale connections: POSTs sent twice", partial(_most, case="stale", key="twice"), 0, "{:.0f}"),
    Check("stale connections: 5xx", partial(_most, case="stale", key="failed"), 0, "{:.0f}"),
    Check("a caller's leaving reaches the origin, s", _worst_leaving, 0.2, form="{:.3f}", strictly=True),
)
