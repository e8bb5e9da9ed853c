"""Endpoint labels are bounded over all workers, and configured endpoints always have one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.telemetry.metrics.endpoint_labels import NAME_BYTES, NONE, OTHER, SEEN_LIMIT, EndpointLabels

if TYPE_CHECKING:
    from tests.telemetry.conftest import Fork, Say


def test_the_first_fifty_have_a_label(labels: EndpointLabels) -> None:
    """Endpoints are named in the order in which they are first seen, and then no more."""
    names = [f"fal-ai/model-{number}" for number in range(SEEN_LIMIT + 5)]
    assert [labels.label(name) for name in names] == [*names[:SEEN_LIMIT], *[OTHER] * 5]
    assert labels.label(names[0]) == names[0]


def test_a_configured_endpoint_needs_no_place(labels: EndpointLabels) -> None:
    """A priced or named endpoint has its own label in a full table, and takes none of the fifty."""
    labels.configure(["fal-ai/priced", "x" * (NAME_BYTES + 1)])
    assert labels.label("fal-ai/priced") == "fal-ai/priced"
    for number in range(SEEN_LIMIT):
        assert labels.label(f"model-{number}") != OTHER
    assert labels.label("one-too-many") == OTHER
    labels.configure(["fal-ai/new"])
    assert [labels.label(name) for name in ("fal-ai/new", "model-0", "fal-ai/priced")] == [
        "fal-ai/new",
        "model-0",
        OTHER,
    ]


@pytest.mark.parametrize("name", ["x" * (NAME_BYTES + 1), "fal-ai/\u00e9", "fal-ai/\udcff", ""])
def test_names_that_cannot_be_endpoints_take_no_place(labels: EndpointLabels, name: str) -> None:
    """Too long, not ASCII, or empty: `other`, at once and for ever."""
    assert labels.label(name) == OTHER
    labels.configure(())
    assert labels.label(name) == OTHER


def test_not_known_is_a_label_of_its_own(labels: EndpointLabels) -> None:
    """`none` stands for a request that was refused before its endpoint was known; it is no endpoint seen."""
    assert labels.label(NONE) == NONE
    assert [labels.label(str(number)) for number in range(SEEN_LIMIT)] == [str(number) for number in range(SEEN_LIMIT)]


def test_workers_agree_on_the_fifty(labels: EndpointLabels, fork: Fork) -> None:
    """Four processes that each see forty endpoints of their own at once name fifty between them, all the same."""

    def see(prefix: str, say: Say) -> None:
        named = [labels.label(f"{prefix}/{number}") for number in range(40)]
        say(bytes([sum(name != OTHER for name in named)]))

    children = [fork(lambda say, prefix=prefix: see(prefix, say)) for prefix in "abcd"]  # type: ignore[misc]
    assert sum(child.heard()[0] for child in children) == SEEN_LIMIT
    assert [child.exit_status() for child in children] == [0] * 4
    mine = [labels.label(f"{prefix}/{number}") for prefix in "abcd" for number in range(40)]
    assert sum(name != OTHER for name in mine) == SEEN_LIMIT


def test_a_worker_learns_what_others_have_named(labels: EndpointLabels, fork: Fork) -> None:
    """An endpoint named by one worker has the same label in another, also when the table is full by then."""

    def fill(_say: Say) -> None:
        for number in range(SEEN_LIMIT):
            labels.label(str(number))

    assert fork(fill).exit_status() == 0
    assert (labels.label("late"), labels.label("0")) == (OTHER, "0")
