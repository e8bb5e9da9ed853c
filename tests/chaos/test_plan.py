"""Rules of the schedule: a seed draws it, faults of one resource follow each other, and all end before the run does."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import pytest

from tests.chaos.plan import FIRST_SECONDS, QUIET_SECONDS, RECOVERY_SECONDS, resources_of, schedule

SHARED: Final = resources_of(gateways=2, is_shared=True)
SINGLE: Final = resources_of(gateways=1, is_shared=False)


def test_a_seed_draws_its_schedule() -> None:
    """The same seed gives the same schedule, another seed another one."""
    assert schedule(7, 120, SHARED) == schedule(7, 120, SHARED)
    assert schedule(7, 120, SHARED) != schedule(8, 120, SHARED)
    assert schedule(7, 120, SHARED) != schedule(7, 120, SINGLE)


@pytest.mark.parametrize("seed", range(5))
def test_faults_of_one_resource_follow_each_other(seed: int) -> None:
    """Each begins after the one before has ended and its resource had a moment to recover; all end in time."""
    faults = schedule(seed, 900, SHARED)
    for resource in SHARED:
        own = [fault for fault in faults if fault.resource == resource]
        assert len(own) > 5
        for before, after in pairwise(own):
            assert after.at_seconds >= before.at_seconds + before.seconds + RECOVERY_SECONDS - 0.01
    assert min(fault.at_seconds for fault in faults) >= FIRST_SECONDS
    assert max(fault.at_seconds + fault.seconds for fault in faults) <= 900 - QUIET_SECONDS + 0.01


def test_every_kind_is_drawn() -> None:
    """In a long schedule each kind of each resource occurs, for as long as its bounds say."""
    for resources in (SHARED, SINGLE):
        faults = schedule(1, 7_200, resources)
        drawn = {(fault.resource, fault.kind) for fault in faults}
        assert drawn == {(name, kind) for name, kinds in resources.items() for kind in kinds}
        for fault in faults:
            kind = resources[fault.resource][fault.kind]
            assert kind.least_seconds <= fault.seconds <= kind.most_seconds
