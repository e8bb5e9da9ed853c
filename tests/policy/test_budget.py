"""When periods begin and end, and what a caller without money left is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.budget import Budget, Calendar, budget_exhausted, moment_within, period_end, period_start

MOMENTS = st.floats(min_value=0, max_value=4e9)
PERIODS = ("day", "week", "month")


def at(text: str) -> float:
    """Return the seconds since the epoch of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "moment", "start", "end"),
    [
        ("day", "2026-11-22T23:59:59.999", "2026-11-22", "2026-11-23"),
        ("day", "2026-11-23T00:00:00", "2026-11-23", "2026-11-24"),
        ("week", "2026-11-22T12:00:00", "2026-11-16", "2026-11-23"),  # a Sunday
        ("week", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),  # a Monday
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T00:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods_are_those_of_utc(period: str, moment: str, start: str, end: str) -> None:
    """Days, weeks from Monday, months of the calendar."""
    begun = period_start(period, at(moment))
    assert (begun, period_end(period, begun)) == (at(start), at(end))


@given(MOMENTS, st.sampled_from(PERIODS))
def test_every_moment_is_in_its_period_alone(moment: float, period: str) -> None:
    """The period holds the moment, and the next begins where it ends."""
    start = period_start(period, moment)
    end = period_end(period, start)
    assert start <= moment < end
    assert period_start(period, float(end)) == end
    assert period_start(period, float(start)) == start


@given(st.lists(MOMENTS, min_size=1, max_size=20))
def test_a_calendar_remembers_nothing_wrong(moments: list[float]) -> None:
    """In whatever order it is asked, also backwards, it answers as if asked for the first time."""
    calendar = Calendar()
    for moment in moments:
        assert [calendar.start(each, moment) for each in PERIODS] == [period_start(each, moment) for each in PERIODS]


def test_a_refusal_names_the_budget_and_when_it_starts_anew() -> None:
    """402: which budget, how much, and when there is more."""
    budget = Budget("key/web-prod", "month", 50 * 10**9)
    start = period_start("month", at("2026-11-22"))
    problem = budget_exhausted(budget, start=start, used_ns=49_990_000_000, estimate_ns=25_000_000)
    assert (problem.status, problem.error_type) == (402, "budget_exhausted")
    for word in ("key web-prod", "month", "49.99", "50", "0.025", "2026-12-01T00:00:00Z"):
        assert word in problem.detail


def test_equal_budgets_are_equal() -> None:
    """A reload that changes nothing makes equal rules."""
    one, other = (Budget("team/a", "day", 5, [0.8, 0.5]) for _ in range(2))
    assert (one, hash(one), one.warn_at) == (other, hash(other), (0.5, 0.8))
    assert one != Budget("team/a", "day", 6)
    assert timedelta(seconds=period_end("day", 0)) == timedelta(days=1)


NOON_TUESDAY: Final = 1_795_521_600  # 2026-11-24T12:00:00Z
MIDNIGHT: Final = NOON_TUESDAY + 43_200


@pytest.mark.parametrize(
    ("at", "moment"),
    [
        (NOON_TUESDAY, NOON_TUESDAY * 10**6),
        (MIDNIGHT - 1, MIDNIGHT * 10**6 - 10**6),
        (MIDNIGHT, MIDNIGHT * 10**6 - 1),
        (MIDNIGHT + 30, MIDNIGHT * 10**6 - 1),
        (NOON_TUESDAY - 43_205, (NOON_TUESDAY - 43_200) * 10**6),
    ],
)
def test_a_purchase_is_booked_where_its_hold_is(at: int, moment: int) -> None:
    """Whichever day the gateway's own clock says, the moment lies in the periods that the store chose."""
    budgets = Budget("key/web", "day", 1), Budget("team/design", "month", 1)
    starts = tuple(period_start(budget.period, NOON_TUESDAY) for budget in budgets)
    assert moment_within(at * 10**6, budgets, starts) == moment
    assert tuple(period_start(budget.period, moment / 10**6) for budget in budgets) == starts
