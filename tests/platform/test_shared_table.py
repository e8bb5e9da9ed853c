"""The table of places: found again, bounded, and given up in the right order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.platform.shared_table import TAT, SharedTable, digest_of_name

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES: Final = 16
REACH: Final = 4


@pytest.fixture
def table() -> Iterator[SharedTable]:
    """Return a small table of two slots."""
    made = SharedTable(places=PLACES, slots=2, reach=REACH)
    yield made
    made.close()


def alike(count: int, *, at: int = 3) -> list[int]:
    """Return so many digests that begin their search at one index."""
    return [at + PLACES * number for number in range(1, count + 1)]


def test_a_name_keeps_its_place(table: SharedTable) -> None:
    """A name is found where it was put, also behind others that wanted the same place."""
    found = {digest: table.find(digest) for digest in alike(REACH)}
    assert len(set(found.values())) == REACH
    assert {digest: table.find(digest) for digest in found} == found
    assert all(table.digest_at(place) == digest for digest, place in found.items())


def test_the_search_goes_round(table: SharedTable) -> None:
    """Behind the last index comes the first."""
    places = [table.find(digest) for digest in alike(REACH, at=PLACES - 1)]
    assert len(set(places)) == REACH


def test_who_has_rested_longest_gives_up_its_place(table: SharedTable) -> None:
    """With no place free within reach, the one with the earliest moment goes, and its successor begins at nothing."""
    digests = alike(REACH)
    for digest, moment in zip(digests, (40.0, 10.0, 30.0, 20.0), strict=True):
        table.moments[table.find(digest) + TAT] = moment
    place = table.find(digests[1])
    newcomer = alike(REACH + 1)[-1]
    assert table.find(newcomer) == place
    assert (table.digest_at(place), table.moments[place + TAT]) == (newcomer, 0.0)
    assert [table.digest_at(table.find(digest)) for digest in (digests[0], digests[2], digests[3])] == [
        digests[0],
        digests[2],
        digests[3],
    ]


def test_who_holds_slots_stays(table: SharedTable) -> None:
    """A place with slots under way is not given up, however long it has rested."""
    digests = alike(REACH)
    for digest, moment in zip(digests, (1.0, 2.0, 3.0, 4.0), strict=True):
        table.moments[table.find(digest) + TAT] = moment
    table.hold(table.find(digests[0]), 1, 1)
    kept = table.find(digests[0])
    assert table.find(alike(REACH + 1)[-1]) != kept
    assert table.digest_at(kept) == digests[0]


def test_where_all_hold_slots_one_goes_all_the_same(table: SharedTable) -> None:
    """The table is bounded: a newcomer gets a place without slots of its predecessor's."""
    for digest in alike(REACH):
        table.hold(table.find(digest), 0, 1)
    assert table.held(table.find(alike(REACH + 1)[-1])) == 0


def test_slots_are_counted_by_seat(table: SharedTable) -> None:
    """The sum over slots is what is held; a slot never falls below nothing; a vacated one holds nothing."""
    place, other = table.find(5), table.find(6)
    table.hold(place, 0, 2)
    table.hold(place, 1, 1)
    table.hold(other, 1, 4)
    table.hold(place, 0, -1)
    assert (table.held(place), table.held(other)) == (2, 4)
    table.vacate(1)
    assert (table.held(place), table.held(other)) == (1, 0)
    table.hold(place, 1, -1)
    assert table.held(place) == 1


@given(st.lists(st.integers(1, 2**63 - 1), max_size=60))
def test_a_name_is_always_found_a_place(digests: list[int]) -> None:
    """Whoever comes has a place of its own at once, and no two names one place."""
    made = SharedTable(places=8, slots=1, reach=4)
    for digest in digests:
        assert made.digest_at(made.find(digest)) == digest
    owners = [made.digest_at(place * 3) for place in range(8)]
    assert len([owner for owner in owners if owner]) == len({owner for owner in owners if owner})
    made.close()


@given(st.text(max_size=50))
def test_a_digest_stands_for_its_name(name: str) -> None:
    """It fits a signed cell, and is never what a free place has."""
    digest = digest_of_name(name)
    assert 0 < digest < 2**63
    assert digest == digest_of_name(name)
