"""Which gateways live, and until when that is known: behind a store that was emptied, restarted or away."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from gateway.money.living_gateways import LifeSigns

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_SECONDS: Final = 1.0
LONGEST_LOOK_SECONDS: Final = 1.3
RUN_SECONDS: Final = 30.0
APART_SECONDS: Final = 3


def test_a_gateway_that_an_emptied_store_forgot_is_not_taken_for_gone() -> None:
    """It shows its life again within a second or so; what earlier looks found counts until then."""
    signs = LifeSigns("one")
    signs.saw(["one", "two"], begun_at=10.0)
    signs.saw(["one"], begun_at=11.0)
    assert signs.living.names == {"one", "two"}


def test_the_list_is_whole_only_up_to_the_look_before_the_last_one() -> None:
    """A gateway that began behind it may have been forgotten before anybody saw it."""
    signs = LifeSigns("one")
    assert signs.living == (frozenset({"one"}), 0.0)
    whole = []
    for begun_at in (10.0, 11.0, 12.0, 13.0):
        signs.saw(["one"], begun_at=begun_at)
        whole.append(signs.living.known_until)
    assert whole == [0.0, 0.0, 10.0, 11.0]


def test_a_store_that_is_unavailable_forgets_no_gateway() -> None:
    """It has lost none up to the last look that failed; when it is back, all have to show their life again."""
    signs = LifeSigns("one")
    for begun_at in (10.0, 11.0, 12.0):
        signs.missed(begun_at=begun_at - 0.5)
        assert signs.living.known_until == 0.0  # too little was seen to know of all
        signs.saw(["two"], begun_at=begun_at)
    for begun_at in (13.0, 15.0):
        signs.missed(begun_at=begun_at)
        assert signs.living == (frozenset({"one", "two"}), begun_at)
    signs.saw([], begun_at=60.0)
    assert signs.living == (frozenset({"one", "two"}), 11.0)


def test_one_that_has_ended_is_on_the_list_no_more() -> None:
    """Its journals were adopted and applied; and one that shows no life is forgotten after some looks."""
    signs = LifeSigns("one")
    signs.saw(["one", "two", "three"], begun_at=10.0)
    signs.saw(["one"], begun_at=11.0, ended=["two"])
    assert signs.living.names == {"one", "three"}
    for begun_at in (12.0, 13.0, 14.0, 15.0):
        signs.saw(["one"], begun_at=begun_at)
    assert signs.living.names == {"one"}


@pytest.mark.parametrize("seed", range(200))
def test_no_gateway_that_began_in_time_is_missing(seed: int) -> None:
    """Gateways begin and look at any moment, and the store is emptied at any, though not each second."""
    rng = random.Random(seed)  # noqa: S311 (a seed reproduces it)
    begins = {f"gateway-{number}": rng.uniform(0.0, RUN_SECONDS) for number in range(5)}
    signs = {name: LifeSigns(name) for name in begins}
    events = [(at, name) for name, begun_at in begins.items() for at in looks(rng, begun_at)]
    events += [(at + rng.uniform(0.0, APART_SECONDS), "") for at in range(0, int(RUN_SECONDS), 2 * APART_SECONDS)]
    store: set[str] = set()
    for at, name in sorted(events):
        if not name:
            store.clear()
            continue
        store.add(name)
        signs[name].saw(store, begun_at=at)
        living = signs[name].living
        assert living.names >= {other for other, begun_at in begins.items() if begun_at < living.known_until}


def looks(rng: random.Random, begun_at: float) -> Iterator[float]:
    """Yield when a gateway looks, from its beginning on."""
    at = begun_at
    while at < RUN_SECONDS:
        yield at
        at += rng.uniform(LOOK_SECONDS, LONGEST_LOOK_SECONDS)
