"""Budgets: how much a key or a team may spend in a day, a week or a month of UTC.

The decision: a purchase belongs to the period in which it was admitted, also where its cost is known later. A period is
named by the moment at which it began, in seconds since the epoch, so that homes of the state agree on it without a
calendar. Admitted is what fits: spent + held + estimate <= limit, for every budget at once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from gateway.http.problem import Problem, refusal
from gateway.policy.price import usd_text

if TYPE_CHECKING:
    from collections.abc import Sequence

Period = Literal["day", "week", "month"]

_DAY_SECONDS: Final = 86_400
_SKEW_SECONDS: Final = 3_600  # clocks that are further apart are a fault of their own
_MICROSECONDS: Final = 1_000_000
_MONDAY_OFFSET_SECONDS: Final = 3 * _DAY_SECONDS  # 1970-01-01 was a Thursday


class Budget:
    """One owner's budget for one period. `store_name` is the same for the same owner and period.

    `tag` groups what has to live on one node of a cluster, as a `LimitSet`'s does: the team.
    """

    def __init__(
        self, owner: str, period: Period, limit_ns: int, warn_at: Sequence[float] = (), *, tag: str = ""
    ) -> None:
        """Take the owner (`key/web-prod`, `team/design`), and the limit in nanodollars."""
        self.owner: Final = owner
        self.period: Final = period
        self.limit_ns: Final = limit_ns
        self.warn_at: Final = tuple(sorted(set(warn_at)))
        self.store_name: Final = f"{owner}/{period}"
        self.tag: Final = tag

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[str, str, int, tuple[float, ...]]:
        return self.tag, self.store_name, self.limit_ns, self.warn_at


def moment_within(at_us: int, budgets: tuple[Budget, ...], starts: tuple[int, ...]) -> int:
    """Return the moment nearest to `at_us` (microseconds) that lies in all periods in which something is held.

    The clock of a shared store decides which these are, and about midnight a gateway's own may say another day.
    """
    second = at_us // _MICROSECONDS  # whole seconds are small numbers, which compiled code reckons with by itself
    for start in starts:
        if second < start:
            return max(starts) * _MICROSECONDS
    if second % _DAY_SECONDS < _SKEW_SECONDS:  # all periods end at a midnight
        ends = [period_end(budget.period, start) for budget, start in zip(budgets, starts, strict=True)]
        return min(at_us, min(ends) * _MICROSECONDS - 1)
    return at_us


def counts_in(budget: Budget, start: int, *, key: str, team: str, admitted_at_us: int) -> bool:
    """Return whether a purchase counts in the period of a budget that began at `start`."""
    return budget.owner in (f"key/{key}", f"team/{team}") and admitted_at_us >= start * _MICROSECONDS


class Calendar:
    """When periods began, as of the last question; one for each thread."""

    def __init__(self) -> None:
        self._starts: dict[str, int] = {}
        self._valid_from = 0.0
        self._valid_until = 0.0  # the next midnight

    def start(self, period: str, now: float) -> int:
        """Return when a period began; `now` in seconds since the epoch."""
        if not self._valid_from <= now < self._valid_until:
            self._turn(now)
        return self._starts[period]

    def _turn(self, now: float) -> None:
        self._starts = {"day": period_start("day", now), "week": period_start("week", now)}
        self._starts["month"] = period_start("month", now)
        self._valid_from = float(self._starts["day"])
        self._valid_until = self._valid_from + _DAY_SECONDS


def period_start(period: str, moment: float) -> int:
    """Return when the period that holds a moment began; weeks begin on Monday (ISO 8601)."""
    day = int(moment // _DAY_SECONDS) * _DAY_SECONDS
    if period == "day":
        return day
    if period == "week":
        return day - (day + _MONDAY_OFFSET_SECONDS) % (7 * _DAY_SECONDS)
    return int(datetime.fromtimestamp(day, UTC).replace(day=1).timestamp())


def period_end(period: str, start: int) -> int:
    """Return when a period ends that began at `start`."""
    if period == "day":
        return start + _DAY_SECONDS
    if period == "week":
        return start + 7 * _DAY_SECONDS
    return period_start("month", (datetime.fromtimestamp(start, UTC) + timedelta(days=32)).timestamp())


def iso(seconds: int) -> str:
    """Return a moment, in seconds since the epoch, as text."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def budget_exhausted(budget: Budget, *, start: int, used_ns: int, estimate_ns: int) -> Problem:
    """Return the refusal of a call that no longer fits: which budget, how much, when it starts again."""
    anew = iso(period_end(budget.period, start))
    return refusal(
        "budget_exhausted",
        f"The budget of {budget.owner.replace('/', ' ')} for this {budget.period} is spent: "
        f"{usd_text(used_ns)} of {usd_text(budget.limit_ns)} US dollars are spent or held, and this call is estimated "
        f"at {usd_text(estimate_ns)}. It starts anew at {anew}.",
    )
