"""What a bill makes of the ledger's rows: true to the nano-dollar, in any order, and once."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fal.api.billing import BillingEvent
from gateway.ledger.entry import CHARGED, Entry, from_line, merged
from gateway.money.reconcile.compare import Amendment, Drift, reconcile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.money.reconcile.compare import Reconciliation

NOW_US: Final = 2_000_000_000_000_000
LAG_US: Final = 3_600_000_000
ENDPOINTS: Final = ("a/b", "a/c")


def row(number: int = 0, **changed: object) -> Entry:
    """Return a settled purchase that fal knows as `fal-NUMBER`, charged a dollar."""
    usual = {
        "id": f"{number:032x}",
        "status": "settled",
        "team": "design",
        "key": "web",
        "endpoint": "a/b",
        "kind": "run",
        "fal_request_id": f"fal-{number}",
        "admitted_at_us": NOW_US - 2 * LAG_US,
        "changed_at_us": NOW_US - 2 * LAG_US,
        "units": "1",
        "unit": "images",
        "unit_price": "1",
        "estimate_ns": 10**9,
        "cost_ns": 10**9,
        "source": "exact",
    }
    return Entry(**{**usual, **changed})  # type: ignore[arg-type]


def event(
    number: int = 0, cost_ns: int = 10**9, *, at_us: int = NOW_US - LAG_US, units: str | None = "1"
) -> BillingEvent:
    """Return a line of the bill."""
    figure = None if units is None else Decimal(units)
    return BillingEvent(f"fal-{number}", "a/b", at_us, figure, Decimal("0.9"), Decimal(10), cost_ns)


def compared(rows: Sequence[Entry], events: Sequence[BillingEvent]) -> Reconciliation:
    """Compare as of NOW_US."""
    return reconcile(rows, events, now_us=NOW_US, lag_us=LAG_US)


@pytest.mark.parametrize(
    ("status", "cost_ns", "source"),
    [
        ("settled", 10**9, "exact"),
        ("settled", 9 * 10**8, "exact"),
        ("unknown", 10**9, "unknown"),
        ("unknown", None, "unknown"),
        ("held", None, "estimated"),
        ("released", None, "estimated"),
    ],
)
def test_what_fal_billed_is_true_whatever_the_row_said(status: str, cost_ns: int | None, source: str) -> None:
    """Settled, unknown, held and released rows all take the bill's figures, and the ledger takes the row."""
    old = row(status=status, cost_ns=cost_ns, source=source)
    [correction] = compared([old], [event(cost_ns=9 * 10**8, units="1.5")]).corrections
    new = correction.new
    assert (new.status, new.source, new.cost_ns, new.units, new.unit_price) == (
        "reconciled",
        "reconciled",
        9 * 10**8,
        "1.5",
        "0.9",
    )
    assert (new.changed_at_us, new.unit, new.fal_request_id) == (NOW_US, "images", "fal-0")
    assert merged(old, new) == from_line(new.to_line()) == new


def test_drift_is_what_fal_billed_beyond_what_was_charged() -> None:
    """By endpoint and in all; a hold and a released row had charged nothing, an unknown cost is counted apart."""
    rows = [
        row(0),
        row(1, status="held", cost_ns=None),
        row(2, status="released", cost_ns=5),
        row(3, status="unknown", cost_ns=None, endpoint="a/c"),
    ]
    found = compared(rows, [event(number, 15 * 10**8) for number in range(4)])
    assert found.drift == {"a/b": Drift(3, 0, 10**9, 45 * 10**8), "a/c": Drift(1, 1, 0, 15 * 10**8)}
    assert (found.total.drift_ns, found.total.ratio) == (5 * 10**9, 5.0)
    assert (found.drift["a/c"].drift_ns, found.drift["a/c"].ratio) == (15 * 10**8, None)
    assert compared([], []).total == Drift()


def test_lines_of_one_request_are_added_up_and_a_repeated_line_is_one() -> None:
    """The same line on two pages is one line; another line for the same request is more of its bill."""
    first, second = event(cost_ns=7, units="0.1"), event(cost_ns=5, units="0.2", at_us=NOW_US)
    [correction] = compared([row()], [second, first, first, second]).corrections
    assert (correction.new.cost_ns, correction.new.units) == (12, "0.3")


def test_figures_have_no_exponent() -> None:
    """JSON's 1e-7 is read by people and by sheets."""
    line = event()._replace(units=Decimal("1E+2"), unit_price=Decimal("1E-7"))
    [correction] = compared([row()], [line]).corrections
    assert (correction.new.units, correction.new.unit_price) == ("100", "0.0000001")


def test_units_that_fal_does_not_state_stay() -> None:
    """No figure is no news."""
    [correction] = compared([row(units="3")], [event(units=None)]).corrections
    assert correction.new.units == "3"


def test_a_row_without_a_bill_stays_and_is_listed_once_it_is_late() -> None:
    """Not before fal's lag is over, and not where it was released: nobody waits for a bill of that."""
    late, young = row(0), row(1, admitted_at_us=NOW_US - LAG_US + 1)
    gone, settled_before = row(2, status="released"), row(3, status="reconciled")
    found = compared([late, young, gone, settled_before], [])
    assert (found.corrections, found.unbilled) == ((), (late,))


def test_a_bill_without_a_row_is_listed() -> None:
    """Somebody used the account past the gateway; nothing is charged to anybody."""
    found = compared([row(0), row(1, fal_request_id=None)], [event(5), event(0)])
    assert found.unknown_events == (event(5),)
    assert [correction.old.id for correction in found.corrections] == [row(0).id]


def test_a_bill_that_changes_later_is_told_and_the_row_stays() -> None:
    """Rows only climb, and reconciled is the top."""
    done = row(status="reconciled", source="reconciled", cost_ns=5)
    found = compared([done], [event(cost_ns=6)])
    assert (found.corrections, found.amendments, found.agreeing) == ((), (Amendment(done, 6),), 0)
    assert compared([done], [event(cost_ns=5)]).agreeing == 1


def test_of_two_rows_under_one_id_the_first_gets_the_bill() -> None:
    """The bill is spent once."""
    first, second = row(1, fal_request_id="fal-0"), row(0, fal_request_id="fal-0", admitted_at_us=NOW_US - LAG_US - 1)
    found = compared([second, first], [event(0)])
    assert [correction.old for correction in found.corrections] == [first]
    assert found.unbilled == (second,)


ROWS: Final = st.lists(
    st.builds(
        row,
        st.integers(0, 30),
        status=st.sampled_from(["held", "released", "unknown", "settled", "reconciled"]),
        endpoint=st.sampled_from(ENDPOINTS),
        cost_ns=st.none() | st.integers(0, 10**15),
        admitted_at_us=st.integers(NOW_US - 3 * LAG_US, NOW_US),
    ),
    max_size=30,
    unique_by=lambda one: one.id,
)
EVENTS: Final = st.lists(
    st.builds(
        event,
        st.integers(0, 40),
        st.integers(0, 10**12),
        at_us=st.integers(NOW_US - 9, NOW_US),
        units=st.none() | st.just("0.1"),
    ),
    max_size=60,
)


def settled(rows: Sequence[Entry], found: Reconciliation) -> list[Entry]:
    """Return the rows as the ledger has them afterwards."""
    changed = {correction.new.id: correction.new for correction in found.corrections}
    return [merged(one, changed.get(one.id, one)) for one in rows]


@given(ROWS, EVENTS, st.randoms(use_true_random=False))
def test_the_ledger_sums_to_the_bill_and_a_second_time_changes_nothing(
    rows: list[Entry], events: list[BillingEvent], random: object
) -> None:
    """To the nano-dollar, by request; in any order of rows and events; and nothing is lost from sight."""
    found = compared(rows, events)
    after = {one.fal_request_id: one for one in settled(rows, found)}
    lines = set(events)
    for one in (correction.new for correction in found.corrections):
        assert after[one.fal_request_id].cost_ns == sum(
            each.cost_ns for each in lines if each.request_id == one.fal_request_id
        )
    open_ids = {one.fal_request_id for one in rows if one.status != "reconciled"}
    billed = [each for each in lines if each.request_id in open_ids]
    assert found.total.true_ns == sum(each.cost_ns for each in billed)
    ours = [c.old.cost_ns or 0 for c in found.corrections if c.old.status in CHARGED]
    assert found.total.ours_ns + found.total.drift_ns == sum(each.cost_ns for each in billed)
    assert found.total.ours_ns == sum(ours)
    assert sum(one.rows for one in found.drift.values()) == found.total.rows == len(found.corrections)
    assert set(found.unknown_events) == {each for each in lines if each.request_id not in after}
    again = compared(settled(rows, found), events)
    assert (again.corrections, again.total) == ((), Drift())
    assert again.amendments == found.amendments
    assert again.agreeing == found.agreeing + len(found.corrections)
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(events)  # type: ignore[attr-defined]
    shuffled = compared(rows, events)
    assert set(shuffled.corrections) == set(found.corrections)
    assert (shuffled.drift, shuffled.total) == (found.drift, found.total)
