"""The ledger process over the store: what it fills in, whom it buries, what it frees (RELIABILITY 2)."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final, cast

import pytest

from gateway.bookkeeper import Bookkeeper, job_of
from gateway.ledger.entry import Entry
from gateway.ledger.ledger import Ledger
from gateway.ledger.process import Gauges
from gateway.metering.board import Board
from gateway.metering.meter import Meter
from gateway.policy.budget import Budget, period_start
from gateway.state.jobs import JobTable
from gateway.state.last_words import LastWords
from gateway.state.local import Quotas, RecordLock
from gateway.state.redis_books import RedisBooks, StoreAwayError
from gateway.treasury import LAG_SECONDS, YOUNG_SECONDS, Treasury
from tests.harness.redis import RedisServer
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.ruleset import Ruleset

KEY: Final = Budget("key/web", "month", 1_000, tag="design")
TEAM: Final = Budget("team/design", "month", 1_000, tag="design")
OTHER: Final = Budget("key/mobile", "month", 1_000, tag="design")
BUDGETS: Final = (KEY, TEAM, OTHER)
SECOND: Final = 10**6


class Scene:
    """A ledger, a store, and treasuries of gateways over both."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder / "redis")
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.ledger.migrate()
        self.books = RedisBooks(self.redis.url, "one")
        self.numbers = 0
        self.workers = [1]
        self.last_words = LastWords(RecordLock(is_needed=True), places=8)

    def treasury(self, *, age_seconds: float = YOUNG_SECONDS + 60) -> Treasury:
        """Return the treasury of gateway `one`, so many seconds after its start."""
        return Treasury(
            self.books,
            self.ledger,
            replica="one",
            workers=lambda: self.workers,
            born_at=monotonic() - age_seconds,
            last_words=self.last_words,
            job_of=job_of,
        )

    def tell(self, status: str, ago_seconds: float, *, ns: int, job: str | None = None, key: str = "web") -> Entry:
        """Tell the ledger of a purchase of this month that came to this so many seconds ago."""
        self.numbers += 1
        changed_at_us = int((time() - ago_seconds) * SECOND)
        begun_us = period_start("month", time()) * SECOND
        entry = Entry(
            id=f"{self.numbers:032x}",
            status=status,
            team="design",
            key=key,
            endpoint="fal-ai/flux/dev",
            kind="submit" if job else "run",
            fal_request_id=job,
            admitted_at_us=max(begun_us, changed_at_us - 60 * SECOND),
            changed_at_us=changed_at_us,
            units=None,
            unit=None,
            unit_price=None,
            estimate_ns=ns,
            cost_ns=ns if status == "settled" else None,
            source="exact",
        )
        self.ledger.apply([entry])
        return entry

    def sums(self, budget: Budget = KEY) -> tuple[int, int, int]:
        """Return what is spent, held by jobs, and held by runs."""
        (purse,) = self.books.purses([budget])
        assert purse is not None
        return purse.spent_ns, purse.jobs_ns, purse.held_ns

    def close(self) -> None:
        """End everything."""
        self.last_words.close()
        self.books.close()
        self.ledger.close()
        self.redis.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Return a scene."""
    made = Scene(tmp_path)
    yield made
    made.close()


def test_a_gateway_that_has_just_begun_takes_all_that_the_ledger_has(scene: Scene) -> None:
    """Of its own key, team and period; and calls are admitted at once."""
    scene.tell("settled", 100, ns=5)
    scene.tell("settled", 0, ns=7)
    scene.tell("settled", 100, ns=100, key="mobile")
    scene.tell("held", 100, ns=11, job="a")
    scene.tell("held", 100, ns=1_000)  # a run: its process states it
    scene.treasury(age_seconds=0).keep(BUDGETS, is_ledger_up=True)
    assert (scene.sums(), scene.sums(TEAM), scene.sums(OTHER)) == ((12, 11, 0), (112, 11, 0), (100, 0, 0))
    assert float(scene.redis.run("HGET", "fgw:{design|}:key/web/month", "opens")) <= time() - 1_700_000_000


def test_a_purse_that_was_lost_is_filled_up_to_a_few_seconds_ago(scene: Scene) -> None:
    """What became known since is stated by who did it: it counts as it was before. Nobody is admitted at once."""
    scene.tell("settled", 100, ns=5)
    scene.tell("settled", 0, ns=7)
    scene.tell("held", 100, ns=11, job="a")
    scene.tell("held", 0, ns=13, job="b")
    scene.tell("settled", 0, ns=17, job="c")
    scene.tell("released", 0, ns=19, job="d")
    treasury = scene.treasury()
    treasury.keep(BUDGETS, is_ledger_up=True)
    assert scene.sums() == (5, 11 + 17 + 19, 0)
    words = {word: float(scene.redis.run("HGET", "fgw:{design|}:key/web/month", word)) for word in ("opens", "since")}
    assert words["opens"] > time() - 1_700_000_000
    assert time() - LAG_SECONDS - 2 < words["since"] <= time() - LAG_SECONDS


def test_a_budget_that_a_reload_brings_is_open_at_once(scene: Scene) -> None:
    """Nobody holds anything of it; one that was there before and is gone is another matter."""
    treasury = scene.treasury()
    treasury.keep((TEAM,), is_ledger_up=True)
    scene.tell("settled", 0, ns=7)

    def opens_at(budget: Budget) -> float:
        treasury.keep(BUDGETS, is_ledger_up=True)
        return float(scene.redis.run("HGET", f"fgw:{{design|}}:{budget.store_name}", "opens") or 0)

    assert until(lambda: opens_at(KEY), "the new budget") <= time() - 1_700_000_000
    assert scene.sums() == (7, 0, 0)
    scene.redis.run("DEL", f"fgw:{{design|}}:{TEAM.store_name}")
    assert until(lambda: opens_at(TEAM), "the lost budget") > time() - 1_700_000_000
    assert scene.sums(TEAM) == (0, 0, 0), "what was settled just now is stated by who did it"


def test_open_jobs_are_told_to_a_store_that_has_lost_them(scene: Scene) -> None:
    """Once; what was closed meanwhile stays closed."""
    entry = scene.tell("held", 100, ns=11, job="a")
    scene.treasury().keep(BUDGETS, is_ledger_up=True)
    assert scene.redis.run("GET", "fgw:job:a").startswith(b"0")
    assert scene.books.close_job("a", 2, job_of(entry), closer=b"two") == job_of(entry)
    scene.treasury().keep(BUDGETS, is_ledger_up=True)
    scene.redis.run("DEL", "fgw:{replicas}:jobs")
    scene.treasury().keep(BUDGETS, is_ledger_up=True)
    assert scene.redis.run("GET", "fgw:job:a").startswith(b"2")


def test_the_dead_are_buried(scene: Scene) -> None:
    """A process of this gateway at once and for good, one of another when that is given up; those that live are not."""
    treasury = scene.treasury()
    treasury.keep(BUDGETS, is_ledger_up=True)
    key = "fgw:{design|}:key/web/month"
    for holder, held in (("one:1", 1), ("one:2", 2), ("two:1", 4), ("three:1", 8)):
        scene.redis.run("HINCRBY", key, f"g:{holder}", held)
        scene.redis.run("HINCRBY", key, "held", held)
    RedisBooks(scene.redis.url, "two").show_life()

    def left() -> int:
        treasury.keep(BUDGETS, is_ledger_up=True)
        return scene.sums()[2]

    until(lambda: left() == 1 + 4 + 8, "the dead worker to be buried")
    assert not scene.redis.run("HEXISTS", key, "g:one:2")
    until(lambda: left() == 1 + 4, "the gateway that shows no life to be given up", timeout_seconds=20)
    assert scene.sums() == (2 + 8, 0, 1 + 4)
    assert scene.redis.run("HEXISTS", key, "g:three:1"), "it may come back"


def test_an_overdue_job_frees_what_it_holds(scene: Scene) -> None:
    """Every gateway that finds it may charge it, and who is told so by the ledger frees it; a result comes too late."""
    entry = scene.tell("held", 100, ns=11, job="a")
    treasury = scene.treasury()
    treasury.keep(BUDGETS, is_ledger_up=True)
    assert scene.sums() == (0, 11, 0)
    assert all(found.claim_overdue(entry, is_late=False) for found in (treasury, scene.treasury()))
    treasury.close_overdue(entry._replace(status="settled", cost_ns=11), BUDGETS)
    assert (scene.sums(), scene.sums(TEAM), scene.sums(OTHER)) == ((11, 0, 0), (11, 0, 0), (0, 0, 0))
    assert scene.books.close_job("a", 2, job_of(entry), closer=b"a worker") is None


def test_a_job_that_a_result_has_closed_is_not_overdue(scene: Scene) -> None:
    """Its cost is on its way to the ledger; where that does not come at all, it is charged in the end."""
    entry = scene.tell("held", 100, ns=11, job="a")
    treasury = scene.treasury()
    treasury.keep(BUDGETS, is_ledger_up=True)
    assert scene.books.close_job("a", 2, job_of(entry), closer=b"a worker") == job_of(entry)
    assert not treasury.claim_overdue(entry, is_late=False)
    assert treasury.claim_overdue(entry, is_late=True)
    treasury.close_overdue(entry._replace(status="settled", cost_ns=11), BUDGETS)
    assert scene.sums() == (0, 11, 0), "what it holds is its settler's to free"
    scene.redis.kill()
    assert not treasury.claim_overdue(entry, is_late=True)


class Rules:
    """As much of a ruleset as a bookkeeper asks for: every job is overdue."""

    budgets: Final = {budget.owner: (budget,) for budget in BUDGETS}
    settle_deadline: Final = 0.0


def keeper_of(scene: Scene) -> Bookkeeper:
    """Return a gateway's keeper of the ledger over the store."""
    board = Board(workers=1)
    return Bookkeeper(
        scene.ledger,
        quotas=Quotas(places=8, address_places=8),
        jobs=JobTable(sets=1),
        meter=Meter(board.ledger.region, board.endpoints, emit=lambda _record: None),
        rules=lambda: cast("Ruleset", Rules()),
        ready=lambda: None,
        treasury=scene.treasury(),
    )


def test_of_a_result_and_the_deadline_one_is_charged(scene: Scene) -> None:
    """A result that came first is the cost, also while its line is on its way; the other job is charged by one."""
    entries = {name: scene.tell("held", 100, ns=11, job=name) for name in ("fetched", "left")}
    keepers = [keeper_of(scene) for _ in range(2)]
    scene.treasury().keep(BUDGETS, is_ledger_up=True)
    assert scene.books.close_job("fetched", 2, job_of(entries["fetched"]), closer=b"a worker") is not None
    for keeper in keepers:
        keeper.on_gauges(Gauges(is_up=True, spool_bytes=0, oldest_seconds=0.0, applied=0, skipped=0))
    left = scene.ledger.find_job("left")
    assert left is not None
    assert (left.status, left.source, left.cost_ns) == ("settled", "estimated", 11)
    assert scene.ledger.find_job("fetched") == entries["fetched"]
    assert scene.sums() == (11, 11, 0)
    result = entries["fetched"]._replace(status="settled", cost_ns=7, changed_at_us=left.changed_at_us)
    scene.ledger.apply([result])
    assert scene.ledger.find_job("fetched") == result


def test_a_store_that_is_away_is_no_fault_of_the_ledgers(scene: Scene) -> None:
    """It is looked for again with the next look."""
    treasury = scene.treasury()
    scene.redis.kill()
    with pytest.raises(StoreAwayError):
        scene.books.show_life()
    treasury.keep(BUDGETS, is_ledger_up=True)
    assert not treasury.is_up
    scene.redis.start()

    def is_found() -> bool:
        treasury.keep(BUDGETS, is_ledger_up=True)
        return treasury.is_up

    until(is_found, "the store to be found again")
    assert scene.sums() == (0, 0, 0)
