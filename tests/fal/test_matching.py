"""Lost answers and the bills that are theirs: one to one, never across credentials, and the same in a second run."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.entry import Entry
from gateway.money.reconcile.matching import EARLY_US, LATE_JOB_US, LATE_US, Match, UnmatchedBill, match

SECOND: Final = 10**6
MINUTE: Final = 60 * SECOND
NOW: Final = 2_000_000_000 * SECOND
CREDENTIALS: Final = {"design": "", "film": "", "games": "GAMES_KEY", "music": "MUSIC_KEY"}


def lost(number: int, at_us: int = NOW - 1000 * MINUTE, **changed: object) -> Entry:
    """Return a run that was given up a second after it was admitted."""
    usual = {
        "id": f"{number:032x}",
        "status": "unknown",
        "team": "design",
        "key": "web",
        "endpoint": "a/b",
        "kind": "run",
        "fal_request_id": None,
        "admitted_at_us": at_us,
        "changed_at_us": at_us + SECOND,
        "units": None,
        "unit": "image",
        "unit_price": "1",
        "estimate_ns": 10**9,
        "cost_ns": 10**9,
        "source": "unknown",
    }
    return Entry(**{**usual, **changed})  # type: ignore[arg-type]


def unmatched_bill(
    number: int, at_us: int = NOW - 1000 * MINUTE, *, endpoint: str = "a/b", cost_ns: int = 7
) -> UnmatchedBill:
    """Return a bill that no purchase has."""
    return UnmatchedBill(at_us, f"fal-{number}", endpoint, cost_ns)


def matched(
    rows: list[Entry], unmatched: list[UnmatchedBill], *, proven: frozenset[str] = frozenset()
) -> dict[int, int]:
    """Return the numbers of bills by those of rows."""
    found = match(rows, unmatched, credentials=CREDENTIALS, proven=proven, now_us=NOW)
    return {int(one.row.id, 16): int(one.request_id.removeprefix("fal-")) for one in found}


def test_a_bill_belongs_to_a_purchase_of_its_endpoint_and_time() -> None:
    """From a little before it was admitted until a while after it was given up; a job may be executed a day later."""
    at = NOW - 2000 * MINUTE
    for late_us, kind, is_one in (
        (0, "run", True),
        (-EARLY_US, "run", True),
        (-EARLY_US - 1, "run", False),
        (LATE_US + SECOND, "run", True),
        (LATE_US + SECOND + 1, "run", False),
        (LATE_JOB_US, "submit", True),
        (LATE_JOB_US + 1, "submit", False),
    ):
        assert matched([lost(1, at, kind=kind)], [unmatched_bill(1, at + late_us)]) == ({1: 1} if is_one else {})
    assert matched([lost(1)], [unmatched_bill(1, endpoint="a/c")]) == {}


def test_no_bill_moves_between_credentials() -> None:
    """Where purchases of two credentials could have it, none gets it; nor a team that the policy does not know."""
    assert matched([lost(1), lost(2, team="games")], [unmatched_bill(1)], proven=frozenset({"GAMES_KEY"})) == {}
    assert matched([lost(1, team="stranger")], [unmatched_bill(1)]) == {}
    assert matched([lost(1), lost(2, team="film")], [unmatched_bill(1), unmatched_bill(2)]) == {1: 1, 2: 2}


def test_a_team_s_own_credential_has_to_be_seen_on_the_bill() -> None:
    """It may be another account's, whose bills are not these."""
    assert matched([lost(1, team="games")], [unmatched_bill(1)]) == {}
    assert matched([lost(1, team="games")], [unmatched_bill(1)], proven=frozenset({"MUSIC_KEY"})) == {}
    assert matched([lost(1, team="games")], [unmatched_bill(1)], proven=frozenset({"GAMES_KEY"})) == {1: 1}


def test_more_bills_than_purchases_are_somebody_s_past_the_gateway() -> None:
    """Which is whose cannot be known, and does not matter where they cost the same."""
    assert matched([lost(1)], [unmatched_bill(1, cost_ns=7), unmatched_bill(2, cost_ns=8)]) == {}
    assert matched([lost(1)], [unmatched_bill(1), unmatched_bill(2)]) == {1: 1}
    assert matched([lost(1), lost(2)], [unmatched_bill(1, cost_ns=7), unmatched_bill(2, cost_ns=8)]) == {1: 1, 2: 2}


def test_what_is_under_way_keeps_its_bill() -> None:
    """Its answer will name it; another endpoint, or another time, is not touched."""
    running = lost(2, NOW - MINUTE, status="held", source="estimated", cost_ns=None)
    assert matched([lost(1, NOW - 2 * MINUTE), running], [unmatched_bill(1, NOW - SECOND)]) == {}
    assert matched([lost(1), running], [unmatched_bill(1)]) == {1: 1}


MOMENTS: Final = st.integers(0, 90).map(lambda minutes: NOW - 3000 * MINUTE + minutes * MINUTE)
ROWS: Final = st.lists(
    st.tuples(
        MOMENTS,
        st.sampled_from(sorted(CREDENTIALS)),
        st.sampled_from(("a/b", "a/c")),
        st.sampled_from(("run", "submit")),
        st.sampled_from(("unknown", "unknown", "unknown", "held")),
    ),
    max_size=12,
)
UNMATCHED: Final = st.lists(st.tuples(MOMENTS, st.sampled_from(("a/b", "a/c")), st.integers(5, 6)), max_size=12)


@given(ROWS, UNMATCHED, st.randoms(use_true_random=False))
def test_matches_are_one_to_one_and_another_look_finds_no_more(
    rows: list[tuple[int, str, str, str, str]], unmatched: list[tuple[int, str, int]], shuffled: object
) -> None:
    """Whatever there is, in whatever order: each pair fits, and what is left does not match in a second run."""
    purchases = [
        lost(number, at, team=team, endpoint=endpoint, kind=kind, status=status)
        for number, (at, team, endpoint, kind, status) in enumerate(rows)
    ]
    bills = [
        unmatched_bill(number, at, endpoint=name, cost_ns=cost) for number, (at, name, cost) in enumerate(unmatched)
    ]
    proven = frozenset({"GAMES_KEY"})
    found = match(purchases, bills, credentials=CREDENTIALS, proven=proven, now_us=NOW)
    by_id = {bill.request_id: bill for bill in bills}
    assert len({one.row.id for one in found}) == len({one.request_id for one in found}) == len(found)
    for row, request_id in found:
        bill = by_id[request_id]
        latest = row.admitted_at_us + LATE_JOB_US if row.kind == "submit" else row.changed_at_us + LATE_US
        assert row.admitted_at_us - EARLY_US <= bill.at_us <= latest
        assert (row.endpoint, row.status) == (bill.endpoint, "unknown")
        assert CREDENTIALS[row.team] in ("", "GAMES_KEY")
    shuffled.shuffle(purchases)  # type: ignore[attr-defined]
    shuffled.shuffle(bills)  # type: ignore[attr-defined]
    assert match(purchases, bills, credentials=CREDENTIALS, proven=proven, now_us=NOW) == found
    rest = [row for row in purchases if row.id not in {one.row.id for one in found}]
    left = [bill for bill in bills if bill.request_id not in {one.request_id for one in found}]
    assert match(rest, left, credentials=CREDENTIALS, proven=proven, now_us=NOW) == list[Match]()
