"""All cases, in the order in which they are run and reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cases import behaviour, bodies, growth, posts, profile, quotas, soak, streams

if TYPE_CHECKING:
    from benchmarks.case import Case, Extent


def catalog(extent: Extent) -> tuple[Case, ...]:
    """Return every case for a run of this extent."""
    return (
        *posts.CASES,
        *bodies.CASES,
        *streams.CASES,
        *behaviour.CASES,
        *growth.cases(extent),
        *profile.CASES,
        *quotas.CASES,
        *soak.CASES,
    )
