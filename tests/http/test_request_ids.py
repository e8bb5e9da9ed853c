"""Names of requests and spans."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway.http.request_ids import ID_DIGITS, RandomIds, RequestIds

if TYPE_CHECKING:
    import pytest

NOW = 1_795_521_600.123


def test_a_name_is_128_bits_in_hexadecimal() -> None:
    """Of one length, whatever the moment."""
    ids = RequestIds()
    for now in (0.0, NOW, 2.0**37):
        name = ids.next(now)
        assert (len(name), name) == (ID_DIGITS, f"{int(name, 16):032x}")


def test_a_newer_name_is_greater() -> None:
    """By its text, as an index of the ledger sorts it; a clock that is set back is followed."""
    ids = RequestIds()
    names = [ids.next(NOW + milliseconds / 1000) for milliseconds in range(0, 10_000, 2)]
    assert names == sorted(names)
    assert ids.next(NOW) < names[1]


def test_names_of_one_moment_differ() -> None:
    """Beyond what is drawn at once, and beside another process's."""
    one, other = RequestIds(), RequestIds()
    names = [ids.next(NOW) for ids in (one, other) for _ in range(10_000)]
    assert len(set(names)) == 20_000


def test_the_last_half_is_drawn_evenly() -> None:
    """A trace bears the name of its request, and is sampled by these digits; one in a million runs would be odder."""
    ids = RequestIds()
    drawn = [int(ids.next(NOW)[-16:], 16) / 2**64 for _ in range(20_000)]
    assert abs(sum(drawn) / len(drawn) - 0.5) < 0.011
    assert abs(sum(each < 0.1 for each in drawn) / len(drawn) - 0.1) < 0.011


def test_what_is_drawn_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No digit of the kernel's stands in two names, however many are asked for at once."""
    drawn: list[str] = []
    draw = os.urandom

    def kept(count: int) -> bytes:
        drawn.append(draw(count).hex())
        return bytes.fromhex(drawn[-1])

    monkeypatch.setattr(os, "urandom", kept)
    ids = RandomIds()
    at, pool = 0, 0
    for digits in [ids.next(count) for count in (16, 20, 32) * 200]:
        if not drawn[pool].startswith(digits, at):
            at, pool = 0, pool + 1
        assert drawn[pool].startswith(digits, at)
        at += len(digits)
    assert pool == len(drawn) - 1
