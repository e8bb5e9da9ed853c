"""The ledger process over the store: what it fills in, whom it buries, what it frees."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final, cast

import pytest
from structlog.testing import capture_logs

from gateway.ledger.entry import Entry
from gateway.ledger.journal_places import Places
from gateway.ledger.ledger import Ledger
from gateway.ledger.writer import Gauges
from gateway.money.budget_sync import BudgetSync
from gateway.money.known_jobs import job_of
from gateway.money.redis_budget_comparison import RedisBudgetComparison
from gateway.money.redis_budget_sync import LAG_SECONDS, Journals, RedisBudgetSync
from gateway.policy.budget import Budget, period_start
from gateway.state.memory.jobs import JobTable
from gateway.state.memory.store import Quotas
from gateway.state.redis.admin import CUT_SECONDS, RedisBudgetAdmin, StoreUnavailableError
from gateway.state.redis.budget_counters import purse_key
from gateway.state.redis.budget_scripts import STATE
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.metrics.scoreboard import Scoreboard
from tests.harness.fault_proxy import FaultProxy
from tests.harness.redis import RedisServer
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.config.ruleset import Ruleset

KEY: Final = Budget("key/web", "month", 1_000, tag="design")
TEAM: Final = Budget("team/design", "month", 1_000, tag="design")
OTHER: Final = Budget("key/mobile", "month", 1_000, tag="design")
BUDGETS: Final = (KEY, TEAM, OTHER)
SECOND: Final = 10**6


class Scene:
    """A ledger, a store, and budget syncs of gateways over both."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder / "redis")
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.ledger.migrate()
        self.books = RedisBudgetAdmin(self.redis.url, "one")
        self.numbers = 0
        self.workers = [1]
        self.applied = {1: 0}
        self.adopted: list[str] = []

    def budget_sync(self) -> RedisBudgetSync:
        """Return the budget sync of gateway `one`, which has just begun."""
        return RedisBudgetSync(
            self.books,
            self.ledger,
            replica="one",
            workers=lambda: self.workers,
            journals=lambda: Journals(self.applied, self.adopted),
            audit=RedisBudgetComparison(self.books, self.ledger, cut_age_seconds=0.0),
        )

    def restore(self, snapshot: bytes) -> None:
        """Kill the store, and start it from a snapshot."""
        self.redis.kill()
        self.redis.start(snapshot=snapshot)

    def look(self, budget_sync: RedisBudgetSync, *budgets: Budget, is_ledger_up: bool = True) -> None:
        """Let it look once, and compare."""
        budget_sync._look_at = 0.0
        budget_sync.audit_soon()
        budget_sync.keep(budgets or BUDGETS, is_ledger_up=is_ledger_up)

    def audited(self, budget_sync: RedisBudgetSync, budget: Budget = KEY) -> tuple[int, int, int]:
        """Return a budget's sums after four looks, no other cut being open: a difference has to be in two cuts."""
        self.redis.run("DEL", *(key_of(each) + ":cut" for each in BUDGETS))
        for _ in range(4):
            self.look(budget_sync)
        return self.sums(budget)

    def carry(self, holder: str, place: int, *rows: Entry) -> None:
        """Let a gateway bring a process's journal to the ledger up to a place, with the rows of its lines."""
        gateway, _, pid = holder.rpartition(":")
        self.ledger.apply(rows, places=Places({(gateway, f"worker-0-{pid}"): place}, ()))

    def state(self, holder: str, register: str, value: int, *, place: int, budget: Budget = KEY) -> None:
        """State one register of a process, as its worker does."""
        key, names = key_of(budget), {"n": 2, "s": 3, "j": 4}
        start, edition = (self.redis.run("HGET", key, name) for name in ("start", "edition"))
        words: list[str | float] = [holder, 0, place, start, edition, "", "", "", ""]
        words[4 + names[register]] = value
        self.redis.run("EVAL", STATE.text.decode(), 1, key, *words)

    def tell(self, status: str, ago_seconds: float, *, ns: int, job: str | None = None, key: str = "web") -> Entry:
        """Tell the ledger of a purchase of this month that came to this so many seconds ago."""
        entry = self.row(status, ago_seconds, ns=ns, job=job, key=key)
        self.ledger.apply([entry])
        return entry

    def row(self, status: str, ago_seconds: float, *, ns: int, job: str | None = None, key: str = "web") -> Entry:
        """Return a purchase of this month that came to this so many seconds ago."""
        self.numbers += 1
        changed_at_us = int((time() - ago_seconds) * SECOND)
        begun_us = period_start("month", time()) * SECOND
        return Entry(
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

    def sums(self, budget: Budget = KEY) -> tuple[int, int, int]:
        """Return what is spent, held by jobs, and held by runs."""
        (purse,) = self.books.purses([budget])
        assert purse is not None
        return purse.spent_ns, purse.jobs_ns, purse.held_ns

    def close(self) -> None:
        """End everything."""
        self.books.close()
        self.ledger.close()
        self.redis.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Return a scene."""
    made = Scene(tmp_path)
    yield made
    made.close()


def key_of(budget: Budget) -> str:
    """Return where a purse is."""
    return purse_key(budget).decode()


def opens_at(scene: Scene, budget: Budget = KEY) -> float:
    """Return when a purse admits calls, in seconds from now."""
    return float(scene.redis.run("HGET", key_of(budget), "opens")) + 1_700_000_000 - time()


def test_a_gateway_that_has_just_begun_takes_all_that_the_ledger_has(scene: Scene) -> None:
    """Of its own key, team and period; and calls are admitted at once."""
    scene.tell("settled", 100, ns=5)
    scene.tell("settled", 0, ns=7)
    scene.tell("settled", 100, ns=100, key="mobile")
    scene.tell("held", 100, ns=11, job="a")
    scene.tell("held", 100, ns=1_000)  # a run: its process states it
    scene.budget_sync().keep(BUDGETS, is_ledger_up=True)
    assert (scene.sums(), scene.sums(TEAM), scene.sums(OTHER)) == ((12, 11, 0), (112, 11, 0), (100, 0, 0))
    assert opens_at(scene) <= 0


def test_a_purse_that_was_lost_has_what_the_ledger_has_and_opens_later(scene: Scene) -> None:
    """Also what a bill has corrected a moment ago; until it opens processes state what they hold."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    entry = scene.tell("settled", 100, ns=5)
    scene.ledger.apply([entry._replace(status="reconciled", cost_ns=6, changed_at_us=int(time() * SECOND))])
    scene.tell("held", 0, ns=13, job="b")
    scene.redis.run("FLUSHALL")
    scene.look(budget_sync)
    assert (scene.sums(), scene.sums(TEAM)) == ((6, 13, 0), (6, 13, 0))
    assert opens_at(scene) > 0
    since = int(scene.redis.run("HGET", key_of(KEY), "since"))
    assert time() - LAG_SECONDS - 3 < since <= time() - LAG_SECONDS


def test_a_budget_that_a_reload_brings_is_open_at_once(scene: Scene) -> None:
    """No process holds anything of it."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync, TEAM)
    scene.tell("settled", 0, ns=7)
    scene.look(budget_sync)
    assert opens_at(scene, KEY) <= 0
    assert scene.sums() == (7, 0, 0)


@pytest.mark.parametrize("fault", ["lost", "evicted", "restored", "restored at once", "restored from before a loss"])
def test_a_store_that_is_older_is_filled_in_again(scene: Scene, fault: str) -> None:
    """Whatever it lost or was restored to: what the ledger has is spent, and a closed job stays closed."""
    budget_sync = scene.budget_sync()
    job = scene.tell("held", 100, ns=11, job="a")
    scene.look(budget_sync)
    if fault == "restored from before a loss":
        early = scene.redis.snapshot()
        scene.redis.run("FLUSHALL")
        scene.look(budget_sync)
        scene.look(budget_sync)
    else:
        early = scene.redis.snapshot()
    scene.ledger.apply([job._replace(status="settled", cost_ns=4, changed_at_us=int(time() * SECOND))])
    scene.books.close_job("a", 2, job_of(job), closer=b"two")
    scene.tell("settled", 0, ns=7)
    if fault != "restored at once":  # as a replica that lagged behind by less than a second
        scene.look(budget_sync)
    if fault == "lost":
        scene.redis.run("FLUSHALL")
    elif fault == "evicted":
        scene.redis.run("DEL", key_of(KEY))
    else:
        scene.restore(early)
    scene.look(budget_sync)
    if not budget_sync.is_up:  # the connection was cut by the restore
        scene.look(budget_sync)
    assert scene.sums() == (11, 0, 0)
    assert opens_at(scene) > 0
    scene.look(budget_sync)
    assert scene.books.close_job("a", 2, job_of(job), closer=b"one") is None, "it was settled before"


def test_what_is_gone_is_forgotten(scene: Scene) -> None:
    """Budgets that a reload took out, and processes of gateways that show no life and hold nothing any more."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    scene.state("two:1", "n", 4, place=1)
    scene.look(budget_sync)
    assert (len(budget_sync._editions), list(budget_sync._strange)) == (len(BUDGETS), [b"two:1"])
    scene.redis.run("HDEL", key_of(KEY), "n:two:1")
    scene.look(budget_sync, KEY)
    assert (list(budget_sync._editions), budget_sync._strange) == ([KEY.store_name], {})


def test_an_older_purse_admits_nothing_while_the_ledger_is_unavailable(scene: Scene) -> None:
    """What was spent is not known; with the ledger it is."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    early = scene.redis.snapshot()
    scene.tell("settled", 0, ns=7)
    scene.look(budget_sync)
    scene.restore(early)
    for _ in range(2):
        scene.look(budget_sync, is_ledger_up=False)
    assert scene.books.purses([KEY]) == [None]
    scene.look(budget_sync)
    assert scene.sums() == (7, 0, 0)


def test_a_store_that_went_back_within_an_outage_of_the_ledger_admits_nothing(scene: Scene) -> None:
    """Also where its snapshot is younger than the outage: what was spent since is known to no one then."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    scene.look(budget_sync, is_ledger_up=False)
    early = scene.redis.snapshot()
    scene.state("one:1", "s", 7, place=1)
    scene.look(budget_sync, is_ledger_up=False)
    assert scene.sums() == (7, 0, 0)
    scene.restore(early)
    for _ in range(2):
        scene.look(budget_sync, is_ledger_up=False)
    assert scene.books.purses([KEY]) == [None]


def test_a_store_that_is_emptied_within_a_look_has_its_jobs_again(scene: Scene) -> None:
    """The look that was about to write this gateway's number must not hide it."""
    scene.tell("held", 100, ns=11, job="a")
    scene.workers = []
    budget_sync = scene.budget_sync()
    for _ in range(5):  # by then open jobs are no longer written as a precaution
        scene.look(budget_sync)

    def emptied() -> Journals:
        scene.redis.run("FLUSHALL")
        return Journals({})

    budget_sync._journals = emptied
    scene.look(budget_sync)
    budget_sync._journals = lambda: Journals({})
    scene.look(budget_sync)
    assert scene.redis.run("EXISTS", "fgw:job:a") == 1
    assert scene.sums() == (0, 11, 0)


def test_a_clock_of_the_store_that_was_a_day_ahead_leaves_the_budget_as_it_was(scene: Scene) -> None:
    """Its period has not begun: it is filled in for the present one."""
    day = Budget("key/web", "day", 1_000, tag="design")
    budget_sync = scene.budget_sync()
    entry = scene.tell("settled", 0, ns=7)
    scene.ledger.apply([entry])
    scene.look(budget_sync, day)
    scene.redis.run("HINCRBY", key_of(day), "start", 86_400)
    scene.redis.run("HSET", key_of(day), "spent", 0)
    scene.look(budget_sync, day)
    (purse,) = scene.books.purses([day])
    assert purse is not None
    assert purse.start == period_start("day", time())
    assert purse.spent_ns == scene.ledger.sums_since(purse.start * SECOND).spent.of("key/web")


@pytest.mark.parametrize(
    ("policy", "most_bytes", "is_warned"),
    [
        ("noeviction", 10**8, False),
        ("allkeys-lru", 0, False),
        ("allkeys-lru", 10**8, True),
        ("volatile-ttl", 10**8, True),
    ],
)
def test_a_store_that_deletes_keys_is_warned_of(scene: Scene, policy: str, most_bytes: int, *, is_warned: bool) -> None:
    """Once each time that it is found: budgets and jobs must not go when its memory is full."""
    scene.redis.run("CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", most_bytes)
    budget_sync = scene.budget_sync()
    with capture_logs() as events:
        scene.look(budget_sync)
        scene.look(budget_sync)
    told = [event for event in events if event["event"] == "state_store_evicts"]
    assert [(event["policy"], event["maxmemory_bytes"]) for event in told] == [(policy, most_bytes)] * is_warned


def test_jobs_are_told_to_a_store_that_has_lost_them(scene: Scene) -> None:
    """Open ones, and those of the last day that were settled or given back; what was closed meanwhile stays closed."""
    entry = scene.tell("held", 100, ns=11, job="open")
    for status in ("settled", "released"):
        scene.tell(status, 100, ns=11, job=status)
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    states = {name: scene.redis.run("GET", f"fgw:job:{name}")[:1] for name in ("open", "settled", "released")}
    assert states == {"open": b"0", "settled": b"2", "released": b"1"}
    assert scene.books.close_job("open", 2, job_of(entry), closer=b"two") == job_of(entry)
    scene.look(scene.budget_sync())
    assert scene.redis.run("GET", "fgw:job:open").startswith(b"2")
    scene.redis.run("FLUSHALL")
    scene.look(budget_sync)
    assert scene.redis.run("GET", "fgw:job:settled").startswith(b"2")


def test_the_comparison_waits_for_all_that_was_stated(scene: Scene) -> None:
    """A purse is corrected only where the ledger has every process's journal as far as it stated."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    scene.state("one:1", "s", 9, place=50)
    assert scene.audited(budget_sync) == (9, 0, 0)
    scene.tell("settled", 0, ns=7)
    scene.carry("one:1", 49)
    assert scene.audited(budget_sync) == (9, 0, 0)
    scene.carry("one:1", 50)
    assert scene.audited(budget_sync) == (7, 0, 0)
    scene.state("two:1", "s", 5, place=10)
    assert scene.audited(budget_sync) == (12, 0, 0), "another gateway says when its journals are in the ledger"
    scene.carry("two:1", 10)
    assert scene.audited(budget_sync) == (7, 0, 0)


class Caller:
    """A process that settles a run and a job before each look, and whose journal is a purchase behind in the ledger."""

    def __init__(self, scene: Scene, holder: str) -> None:
        self._scene = scene
        self._holder = holder
        self._waiting: list[Entry] = []
        self.spent = 0
        self.jobs = 0

    def call(self) -> None:
        """Settle, submit and state; the ledger gets what was stated before."""
        self.carry()
        self.spent += 3
        self.jobs += 5
        self._waiting = [
            self._scene.row("settled", 1, ns=3),
            self._scene.row("held", 1, ns=5, job=f"{self._holder}-{self.jobs}"),
        ]
        self._scene.state(self._holder, "s", self.spent, place=self.spent - 1)
        self._scene.state(self._holder, "j", self.jobs, place=self.spent)

    def carry(self) -> None:
        """Bring all that was stated to the ledger."""
        self._scene.carry(self._holder, self.spent, *self._waiting)
        self._waiting = []


@pytest.mark.parametrize(("spent_ns", "jobs_ns"), [(100, 0), (-7, 0), (0, 90), (40, -4)])
def test_a_purse_that_is_spent_from_without_a_pause_is_corrected(scene: Scene, spent_ns: int, jobs_ns: int) -> None:
    """To the nanodollar, whether too high or too low, by two gateways' processes that never wait for the ledger."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync, KEY)
    callers = [Caller(scene, holder) for holder in ("one:1", "two:1")]
    RedisBudgetAdmin(scene.redis.url, "two").show_life()

    def look() -> None:
        for caller in callers:
            caller.call()
        scene.look(budget_sync, KEY)

    look()
    scene.redis.run("HINCRBY", key_of(KEY), "spent", spent_ns)
    scene.redis.run("HINCRBY", key_of(KEY), "jobs", jobs_ns)
    with capture_logs() as events:
        for _ in range(6):
            look()
    told = [(each["spent_ns"], each["held_ns"]) for each in events if each["event"] == "budget_corrected"]
    assert told == [(-spent_ns, -jobs_ns)]
    assert scene.sums() == (sum(each.spent for each in callers), sum(each.jobs for each in callers), 0)


def test_a_statement_that_comes_late_is_no_difference_twice(scene: Scene) -> None:
    """A worker's journal may be in the ledger while its statement is still on its way to the store."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    scene.state("one:1", "s", 5, place=5)
    scene.carry("one:1", 9, scene.row("settled", 0, ns=5), scene.row("settled", 0, ns=2))
    scene.look(budget_sync)
    scene.look(budget_sync)
    scene.state("one:1", "s", 7, place=9)
    assert scene.audited(budget_sync) == (7, 0, 0)
    assert scene.audited(budget_sync) == (7, 0, 0)


def test_a_cut_ends_with_its_purse(scene: Scene) -> None:
    """What was stated of another edition says nothing of this one; and the next cut is open again."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    scene.look(budget_sync)
    assert scene.redis.run("EXISTS", key_of(KEY) + ":cut") == 1
    scene.redis.run("HINCRBY", key_of(KEY), "edition", 1)
    scene.redis.run("HINCRBY", key_of(KEY), "spent", 4)
    scene.look(budget_sync)
    assert scene.sums() == (4, 0, 0)
    assert scene.audited(budget_sync) == (0, 0, 0)


def test_a_cut_that_is_not_closed_goes_by_itself(scene: Scene) -> None:
    """Its gateway may have died: statements list nothing then, and others may open one."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    scene.look(budget_sync)
    assert 0 < scene.redis.run("TTL", key_of(KEY) + ":cut") <= CUT_SECONDS
    (other,) = scene.books.open_cuts([KEY], "another")
    assert other is None, "one at a time"
    scene.redis.run("DEL", key_of(KEY) + ":cut")
    scene.state("one:1", "s", 3, place=1)
    assert scene.redis.run("HGET", key_of(KEY), "cut") is None
    assert scene.redis.run("EXISTS", key_of(KEY) + ":cut") == 0


def test_jobs_and_spending_are_set_to_the_ledgers(scene: Scene) -> None:
    """A hold that no job has any more goes; one that was forgotten is there again."""
    scene.tell("held", 100, ns=11, job="a")
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    scene.redis.run("HINCRBY", key_of(KEY), "jobs", 20)
    scene.redis.run("HINCRBY", key_of(TEAM), "jobs", -11)
    scene.redis.run("HINCRBY", key_of(TEAM), "spent", 3)
    scene.look(budget_sync)
    scene.look(budget_sync)
    assert scene.sums() == (0, 31, 0), "once may be chance"
    scene.look(budget_sync)
    assert (scene.sums(), scene.sums(TEAM)) == ((0, 11, 0), (0, 11, 0))


def test_the_dead_are_buried(scene: Scene) -> None:
    """A process of this gateway once its journal is applied, one of another when that is given up or adopted."""
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    key = key_of(KEY)
    scene.applied = {1: 0, 3: 5}
    held = {"one:1": 1, "one:2": 2, "one:3": 4, "two:1": 8, "three:1": 16, "four:1": 32}
    for holder, amount in held.items():
        scene.redis.run("HINCRBY", key, f"g:{holder}", amount)
        scene.redis.run("HINCRBY", key, "held", amount)
        scene.state(holder, "s", 1, place=5)
    scene.adopted = ["four"]
    RedisBudgetAdmin(scene.redis.url, "two").show_life()

    def left() -> int:
        scene.look(budget_sync)
        return scene.sums()[2]

    assert left() == 1 + 4 + 8 + 16
    assert not scene.redis.run("HEXISTS", key, "p:one:2")
    scene.applied = {1: 0}
    assert left() == 1 + 8 + 16
    until(lambda: left() == 1 + 8, "the gateway that shows no life to be given up", timeout_seconds=20)
    assert scene.redis.run("HEXISTS", key, "g:three:1"), "it may come back"
    assert scene.sums()[0] >= 16, "whether it was spent nobody here knows"


def test_an_overdue_job_frees_what_it_holds(scene: Scene) -> None:
    """Every gateway that finds it may charge it, and the comparison frees it; a result comes too late."""
    entry = scene.tell("held", 100, ns=11, job="a")
    budget_sync, other = scene.budget_sync(), scene.budget_sync()
    scene.look(budget_sync)
    scene.look(other)
    assert scene.sums() == (0, 11, 0)
    assert all(found.claim_job(entry, is_late=False) for found in (budget_sync, other))
    scene.ledger.apply([entry._replace(status="settled", cost_ns=11)])
    assert scene.audited(budget_sync) == (11, 0, 0)
    assert (scene.sums(TEAM), scene.sums(OTHER)) == ((11, 0, 0), (0, 0, 0))
    assert scene.books.close_job("a", 2, job_of(entry), closer=b"a worker") is None


def test_a_job_that_a_result_has_closed_is_not_overdue(scene: Scene) -> None:
    """Its cost is on its way to the ledger; where that does not come at all, it is charged in the end."""
    entry = scene.tell("held", 100, ns=11, job="a")
    budget_sync = scene.budget_sync()
    scene.look(budget_sync)
    assert scene.books.close_job("a", 2, job_of(entry), closer=b"a worker") == job_of(entry)
    assert not budget_sync.claim_job(entry, is_late=False)
    assert budget_sync.claim_job(entry, is_late=True)
    scene.redis.kill()
    assert not budget_sync.claim_job(entry, is_late=True)
    assert not budget_sync.is_up


UP: Final = Gauges(is_up=True, spool_bytes=0, oldest_seconds=0.0, applied=0, skipped=0)


class Rules:
    """As much of a ruleset as a budget sync asks for."""

    budgets: Final = {budget.owner: (budget,) for budget in BUDGETS}

    def __init__(self, deadline: float) -> None:
        self.settle_deadline = deadline


def keeper_of(scene: Scene, *, deadline: float = 0.0) -> BudgetSync:
    """Return a gateway's keeper of the ledger over the store; by default every job is overdue."""
    scoreboard = Scoreboard(workers=1)
    return BudgetSync(
        scene.ledger,
        quotas=Quotas(places=8, address_places=8),
        jobs=JobTable(sets=1),
        meter=Meter(scoreboard.ledger.region, scoreboard.endpoints, emit=lambda _record: None),
        rules=lambda: cast("Ruleset", Rules(deadline)),
        ready=lambda: None,
        budget_sync=scene.budget_sync(),
    )


def test_of_a_result_and_the_deadline_one_is_charged(scene: Scene) -> None:
    """A result that came first is the cost, also while its line is on its way; the other job is charged by one."""
    entries = {name: scene.tell("held", 10, ns=11, job=name) for name in ("fetched", "left")}
    keepers = [keeper_of(scene, deadline=20.0) for _ in range(2)]
    scene.look(scene.budget_sync())
    assert scene.books.close_job("fetched", 2, job_of(entries["fetched"]), closer=b"a worker") is not None
    for keeper in keepers:
        keeper.on_gauges(UP)
    left = scene.ledger.find_job("left")
    assert left is not None
    assert (left.status, left.source, left.cost_ns) == ("settled", "estimated", 11)
    assert scene.ledger.find_job("fetched") == entries["fetched"]
    assert scene.audited(scene.budget_sync()) == (11, 11, 0)
    result = entries["fetched"]._replace(status="settled", cost_ns=7, changed_at_us=left.changed_at_us)
    scene.ledger.apply([result])
    assert scene.ledger.find_job("fetched") == result


def test_a_store_that_is_away_is_no_fault_of_the_ledgers(scene: Scene) -> None:
    """It is looked for again with the next look."""
    budget_sync = scene.budget_sync()
    scene.redis.kill()
    with pytest.raises(StoreUnavailableError):
        scene.books.show_life()
    budget_sync.keep(BUDGETS, is_ledger_up=True)
    assert not budget_sync.is_up
    scene.redis.start()

    def is_found() -> bool:
        budget_sync.keep(BUDGETS, is_ledger_up=True)
        return budget_sync.is_up

    until(is_found, "the store to be found again")
    assert scene.sums() == (0, 0, 0)


def test_a_bill_blocks_nobody_where_the_store_does_not_answer(scene: Scene) -> None:
    """A thousand corrections take no longer than one timeout, and reach the budgets when the store is back."""
    now_us = int(time() * SECOND)
    rows = [scene.tell("settled", 0, ns=5, job=f"job-{number}") for number in range(100)]
    rows += [scene.tell("held", 0, ns=5, job=f"job-{number}") for number in range(100, 200)]
    with FaultProxy(scene.redis.port) as proxy:
        scene.books = RedisBudgetAdmin(proxy.url, "one")
        keeper = keeper_of(scene, deadline=86_400.0)
        keeper.on_gauges(UP)
        assert keeper._budget_sync is not None
        assert keeper._budget_sync.is_up
        proxy.mode = "black_hole"
        true = [row._replace(status="reconciled", cost_ns=7, changed_at_us=now_us) for row in rows]
        began = monotonic()
        keeper.on_reconciled(scene.ledger.apply(true))
        keeper.on_gauges(UP)
        assert monotonic() - began < 10
        proxy.mode = "pass"

        def is_equal() -> bool:
            keeper.on_gauges(UP)
            return keeper._budget_sync is not None and keeper._budget_sync.is_up and scene.sums() == (200 * 7, 0, 0)

        until(is_equal, "the budgets to be corrected", timeout_seconds=30)
