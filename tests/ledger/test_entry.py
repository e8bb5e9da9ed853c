"""An entry as a line, and the way in which a row climbs."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.entry import MOST_NS, Entry, folded, from_line, height, merged
from tests.ledger.rows import bound, held, released, settled, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

LIVES: tuple[tuple[Entry, ...], ...] = (
    (held(), settled(changed_at_us=held().admitted_at_us + 5)),
    (held(), released(changed_at_us=held().admitted_at_us + 5)),
    (held(), unknown(), settled(), settled(status="reconciled", cost_ns=40_000_000, source="reconciled")),
    (held(kind="submit"), bound(), settled(kind="submit", fal_request_id="job-0")),
    (held(kind="submit"), bound(), released(kind="submit"), settled(kind="submit")),
    (held(kind="submit"), bound(), unknown(kind="submit", fal_request_id="job-0"), settled(kind="submit")),
)


def line_of(*fields: object) -> bytes:
    """Return a line of these fields with a true checksum, as no release writes it."""
    body = orjson.dumps(fields)
    return b"%08x %b\n" % (zlib.crc32(body), body)


@given(
    text=st.text(max_size=40).filter(lambda text: "\0" not in text),
    amount=st.none() | st.integers(0, MOST_NS),
    units=st.none() | st.decimals(0, 10**6, places=6).map(str),
)
def test_a_line_says_what_was_written(text: str, amount: int | None, units: str | None) -> None:
    """Reading gives back what was written, whatever the texts are; a line has one line feed, at its end."""
    entry = settled(endpoint=text, fal_request_id=text, units=units, cost_ns=amount)
    line = entry.to_line()
    assert from_line(line) == from_line(line[:-1]) == entry
    assert line.index(b"\n") == len(line) - 1


@given(at=st.integers(0, len(settled().to_line()) - 2), byte=st.integers(0, 255))
def test_a_damaged_line_is_none(at: int, byte: int) -> None:
    """A line that is cut, or with another byte in it, tells nothing."""
    line = settled().to_line()
    assert from_line(line[:at]) is None
    assert line[at] == byte or from_line(line[:at] + bytes([byte]) + line[at + 1 :]) is None


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_database_takes_is_cleaned(name: str) -> None:
    """What an origin calls its request holds up no other row: NUL and lone surrogates become question marks."""
    assert from_line(bound(fal_request_id=name).to_line()) == bound(fal_request_id="a?b")


def test_an_absurd_cost_counts_as_the_most() -> None:
    """A garbled figure closes a budget, and does not overflow a column."""
    assert from_line(settled(cost_ns=10**30, estimate_ns=10**30).to_line()) == settled(
        cost_ns=MOST_NS, estimate_ns=MOST_NS
    )


def test_a_newer_line_is_read_as_far_as_it_is_known() -> None:
    """Fields at the end that this release does not know are left out, and nothing else."""
    assert from_line(line_of(*settled(), "new")) == settled()


@pytest.mark.parametrize(
    "fields",
    [
        list(settled())[:-1],
        list(settled(status="sold")),
        list(settled(source="rumour")),
        list(settled(team=None)),
        list(settled(team="a\0b")),
        list(settled(admitted_at_us=1.5)),
        list(settled(cost_ns=-1)),
        list(settled(cost_ns=MOST_NS + 1)),
        list(settled(cost_ns=True)),
    ],
)
def test_what_a_database_would_refuse_is_none(fields: Sequence[object]) -> None:
    """One row that is refused would hold up all those behind it, so it is left out at the door."""
    assert from_line(line_of(*fields)) is None


@pytest.mark.parametrize("figure", ["many", "NaN", "-1", "1E+999999", "1" * 90, 0.5, True])
def test_a_quantity_that_is_none_does_not_cost_the_money(figure: object) -> None:
    """What cannot be added is left out, and the row with its cost stays."""
    line = line_of(*settled()._replace(units=figure, unit_price=figure))  # type: ignore[arg-type]
    assert from_line(line) == settled(units=None, unit_price=None)


@pytest.mark.parametrize("life", LIVES)
@given(data=st.data())
def test_any_order_and_any_repetition_gives_the_same_row(life: tuple[Entry, ...], data: st.DataObject) -> None:
    """What a purchase's lines make does not depend on how often and in which order they come."""
    order = [*data.draw(st.permutations(life)), *data.draw(st.lists(st.sampled_from(life), max_size=6))]
    order = data.draw(st.permutations(order))
    [row] = folded(order).values()
    [straight] = folded(life).values()
    assert row == straight
    assert folded([*order, *life]) == {row.id: row}


def test_a_row_only_climbs() -> None:
    """Held, bound, released, unknown, settled, reconciled: what is lower changes nothing."""
    climb = [held(), bound(), released(), unknown(), settled(), settled(status="reconciled")]
    assert [height(entry) for entry in climb] == [0, 1, 2, 3, 4, 5]
    for lower, higher in pairwise(climb):
        assert merged(lower, higher).status == higher.status
        assert merged(higher, lower)._replace(fal_request_id=None) == higher._replace(fal_request_id=None)


def test_the_first_of_the_same_height_stays() -> None:
    """A result that is fetched twice is settled once, at the first figure."""
    first, second = settled(), settled(cost_ns=1, changed_at_us=1)
    assert merged(first, second) is first


def test_fal_s_id_once_known_is_kept() -> None:
    """The id comes from whichever line has it, and no other takes its place."""
    assert merged(settled(), bound()).fal_request_id == "job-0"
    assert merged(bound(), settled()).fal_request_id == "job-0"
    assert merged(bound(), bound(fal_request_id="other")).fal_request_id == "job-0"


def test_an_endpoint_that_a_caller_made_up_is_cut() -> None:
    """A line has 256 bytes of it at most, ends that differ stay apart, and what is cut stays as it is."""
    one, two = held(endpoint="a/" * 1_950 + "b"), held(endpoint="a/" * 1_950 + "c")
    entries = [from_line(entry.to_line()) for entry in (one, two)]
    cut = [entry.endpoint for entry in entries if entry is not None]
    assert [len(endpoint) for endpoint in cut] == [256, 256]
    assert cut[0] != cut[1]
    assert cut[0].startswith("a/a/")
    again = from_line(held(endpoint=cut[0]).to_line())
    assert again is not None
    assert again.endpoint == cut[0]
    assert len(one.to_line()) < 600
