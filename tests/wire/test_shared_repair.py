"""A Redis that lost data or is older than what gateways wrote: budgets equal the ledger, nothing is charged twice.

The decision it carries: gateways, store and ledger are real, and what went back is judged by the sums in the store.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from gateway.ledger.entry import RECONCILED
from gateway.ledger.ledger import Ledger
from tests.harness.waiting import until
from tests.wire.test_shared_budgets import DOLLAR, SUBMIT, Scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESULT: Final = f"{SUBMIT.replace('/dev', '')}/requests/job-"
REPAIRED_SECONDS: Final = 70.0


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Run two gateways over one Redis and one ledger."""
    with ExitStack() as stack:
        yield Scene(tmp_path, stack, gateways=2)


def repaired(scene: Scene, spent: int, jobs: int = 0) -> None:
    """Wait until the store's sums are these, in dollars, and nothing is held by a run."""
    due = {"spent": spent * DOLLAR, "held": 0, "jobs": jobs * DOLLAR}

    def found() -> bool:
        purse = scene.purse()
        return {name: purse.get(name) for name in due} == due

    until(found, f"{due}, not {scene.purse()}", timeout_seconds=REPAIRED_SECONDS)


def test_a_store_restored_from_an_older_snapshot(scene: Scene) -> None:
    """What a gateway has spent that has ended since is spent; so is what a bill added. No job is charged twice."""
    assert [scene.call(number, SUBMIT) for number in range(2)] == [200] * 2
    scene.wait_for_sums(0, 0, jobs=2)
    early = scene.redis.snapshot()
    assert [scene.call(0) for _ in range(3)] == [200] * 3
    assert scene.call(1, f"{RESULT}1", "GET") == 200
    scene.wait_for_sums(5, 0, jobs=1)
    scene.wait_for_ledger(5)
    scene.gateways[0].close()
    scene.gateways.pop(0)
    scene.redis.kill()
    scene.redis.start(snapshot=early)
    repaired(scene, 5, jobs=1)
    assert scene.call(0, f"{RESULT}1", "GET") == 200
    ledger = Ledger(scene.database)
    row = ledger.find_job("job-1")
    assert row is not None
    ledger.apply([row._replace(status=RECONCILED, source="reconciled", cost_ns=3 * DOLLAR)])  # as `reconcile` does
    ledger.close()
    repaired(scene, 6, jobs=1)
    counted = scene.gateways[0].metrics().value("cost_usd_total", key="web")
    assert counted == 2, "the job's first result"


def test_a_job_is_settled_once_also_where_the_store_lost_it(scene: Scene) -> None:
    """Settled through one gateway, and asked for through the other right behind the loss; one more is settled then."""
    assert [scene.call(0, SUBMIT) for _ in range(3)] == [200] * 3
    scene.wait_for_sums(0, 0, jobs=3)
    assert scene.call(1, f"{RESULT}1", "GET") == 200
    scene.wait_for_sums(2, 0, jobs=2)
    scene.wait_for_ledger(2)
    scene.redis.run("FLUSHALL")
    assert scene.call(0, f"{RESULT}1", "GET") == 200
    assert scene.call(1, f"{RESULT}2", "GET") == 200, "of a job that this gateway did not submit"
    repaired(scene, 4, jobs=1)
    scene.wait_for_ledger(4)
    counted = sum(gateway.metrics().value("cost_usd_total", key="web") for gateway in scene.gateways)
    assert counted == 4
