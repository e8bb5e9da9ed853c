"""A worker that dies at any step of its writing: its budgets are those of the ledger that its journal comes to.

The decision it carries: a real worker's money (accounting, reservations, journal) runs in a process of its own, which
kills itself at the first, the second, the third … moment at which it has to do with its journal, until a life gets to
its end. What it leaves is judged as the supervisor and the ledger's process do.
"""

from __future__ import annotations

import itertools
import mmap
import os
import signal
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import pytest

from gateway.fal.calls import Call
from gateway.ledger.journal import Journal
from gateway.ledger.ledger import Ledger
from gateway.ledger.segments import MARK_CELLS, seal
from gateway.ledger.spool import Spool
from gateway.ledger.spool_folder import SpoolFolder, claim_folder
from gateway.money.accounting import Accounting
from gateway.money.purchase import Purchase, RequestResult
from gateway.policy.budget import Budget, period_start
from gateway.policy.credential import Principal
from gateway.policy.price import Estimates, Price
from gateway.policy.quota import NO_LIMITS
from gateway.state.interface import Acquire
from gateway.state.memory.jobs import JobTable, LocalJobs
from gateway.state.memory.store import LocalStore, Quotas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.state.interface import BudgetStore
    from gateway.state.memory.worker_budgets import Lines, Reservation

NOW: Final = 1_795_000_000.0
BUDGETS: Final = (Budget("key/web", "day", 1_000), Budget("team/design", "month", 1_000))
WEB: Final = Principal("web", "design", None, None, None, budgets=BUDGETS)
FLUX: Final = "fal-ai/flux/dev"
RUN: Final = Call("run", "paid", FLUX, None, "run")
SUBMIT: Final = Call("queue", "paid", FLUX, None, "submit")
RESULT: Final = Call("queue", "free", "fal-ai/flux", "job", "result")
NANO_PRICE: Final = Price("image", 1_000, Decimal(3))  # a nano-dollar a unit
NAME: Final = "worker-0"
SMALL_SEGMENT: Final = 600  # so that segments end in the midst, too
MOST_STEPS: Final = 400

Sums = dict[str, tuple[int, int]]


class Mortal:
    """A journal whose writer kills itself at step `last`: before it looks or writes, within a write, or behind it."""

    def __init__(self, folder: Path, mark: memoryview, last: int) -> None:
        self._journal = Journal(folder, name=NAME, segment_bytes=SMALL_SEGMENT, mark=mark)
        self._left = last
        self._write = os.write

    def step(self) -> None:
        """Die if it is time."""
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @property
    def reach(self) -> int:
        """Pass on (`Lines`)."""
        self.step()
        return self._journal.reach

    @property
    def end(self) -> int:
        """Pass on (`Lines`)."""
        self.step()
        return self._journal.end

    def is_full_for(self, key: str) -> bool:  # noqa: ARG002 (for everybody)
        """Say that there is room (`Journal`)."""
        return False

    def append(self, line: bytes, refused: Callable[[], None] | None = None, optional: bool = False) -> None:  # noqa: FBT001, FBT002
        """Pass on."""
        self._journal.append(line, refused, optional)

    def flush(self) -> bool:
        """Write, in a way that can end after a part of it."""
        self.step()
        os.write = cast("Any", self._write_slowly)
        written = self._journal.flush()
        os.write = self._write
        self.step()
        return written

    def _write_slowly(self, fd: int, data: bytes) -> int:
        third = len(data) // 3
        self._write(fd, data[:third])
        self.step()
        self._write(fd, data[third:-1])
        self.step()
        self._write(fd, data[-1:])
        return len(data)

    def account(self, *_labels: str | None) -> Mortal:
        """Return where nothing is counted (`Takings`)."""
        return self

    def count(self, *_figures: object) -> None:
        """Count nothing (`Account`)."""


class Home(Protocol):
    """Where budgets live, in memory that outlives the worker."""

    def worker(self, lines: Lines) -> Worker:
        """Return the worker's end."""

    def settle_with_dead(self, pid: int, end: int) -> Sums:
        """Take what the dead one left; return what is spent, and held by jobs, by period."""


class Worker(Protocol):
    """A worker's end of it."""

    @property
    def store(self) -> BudgetStore:
        """Return what is told of holds."""

    def take(self, hold: Reservation) -> None:
        """Be granted a hold."""

    def write(self) -> None:
        """Write what the turn has changed."""


class Memory:
    """Of one gateway, with one worker or two."""

    def __init__(self, slots: int) -> None:
        self.quotas = Quotas(slots=slots, places=8, address_places=8)
        for budget in BUDGETS:
            start = period_start(budget.period, NOW)
            self.quotas.purses.fill(budget.store_name, start, spent_ns=0, jobs_ns=0)

    def worker(self, lines: Lines) -> Worker:
        """Sit down in the last slot."""
        return LocalWorker(LocalStore(self.quotas, slot=self.quotas.slots - 1, wall=lambda: NOW, lines=lines))

    def settle_with_dead(self, pid: int, end: int) -> Sums:  # noqa: ARG002 (it goes by the slot)
        """Vacate the slot."""
        self.quotas.vacate(self.quotas.slots - 1, end)
        sums: Sums = {}
        for budget in BUDGETS:
            purse = self.quotas.purses.purse(budget.store_name, period_start(budget.period, NOW))
            sums[budget.period] = (purse.spent_ns, purse.held_ns)
        return sums


class LocalWorker:
    """Over memory."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.write = store.write

    def take(self, hold: Reservation) -> None:
        """Ask."""
        verdict = self.store.ask(Acquire("one", NO_LIMITS, "", hold), lambda _verdict: None)
        assert verdict is not None
        assert verdict.granted


class Life:
    """What a worker does between two ends of turns: everything that money can do."""

    def __init__(self, worker: Worker, journal: Mortal, jobs: JobTable) -> None:
        self._worker, self._journal = worker, journal
        self._numbers = 0
        self._accounting = Accounting(
            prices={FLUX: NANO_PRICE},
            budgets_of=lambda owner: tuple(budget for budget in BUDGETS if budget.owner == owner),
            refuses_unpriced=True,
            store=worker.store,
            jobs=LocalJobs(jobs),
            journal=journal,
            takings=journal,
            estimates=Estimates(),
            wall=lambda: NOW,
        )

    def live(self) -> None:
        """Buy, settle, submit, fetch and give back, with a turn's end behind each step and within some."""
        first, second = self.buy(), self.buy()
        self.end_turn()
        self.settle(first, 8)
        waiting = self.granted()
        self.end_turn()
        job = self.buy(SUBMIT)
        self.end_turn()
        self._accounting.bind(job, "job", lambda: None)
        self.settle(second, 1)
        self.end_turn()
        self._accounting.job_answered(RESULT, 200, Decimal(5), lambda _charge: None)
        self._accounting.record(waiting, lambda: None)
        self.end_turn()
        self.settle(self.buy(), 0)
        self._accounting.close(
            waiting, RequestResult(was_sent=False, status=0, units=None, is_answered=False, fal_id=None)
        )
        self.buy()
        self.end_turn()
        self.end_turn()

    def end_turn(self) -> None:
        """Write as a worker does."""
        self._worker.write()
        self._journal.flush()

    def granted(self, call: Call = RUN) -> Purchase:
        """Hold what a request is estimated at, of which nothing is sent yet."""
        self._numbers += 1
        purchase = self._accounting.open(WEB, call, f"{self._numbers:032x}")
        assert isinstance(purchase, Purchase)
        assert purchase.hold is not None
        self._worker.take(purchase.hold)
        return purchase

    def buy(self, call: Call = RUN) -> Purchase:
        """Hold it, and write the purchase down."""
        purchase = self.granted(call)
        self._accounting.record(purchase, lambda: None)
        return purchase

    def settle(self, purchase: Purchase, units: int) -> None:
        """Let it be answered."""
        self._accounting.close(
            purchase, RequestResult(was_sent=True, status=200, units=Decimal(units), is_answered=True, fal_id=None)
        )


class Books:
    """The ledger, and the folder of journals."""

    def __init__(self, folder: Path) -> None:
        self.spool: Final[SpoolFolder] = claim_folder(folder / "spool", "own")
        self.mark = memoryview(mmap.mmap(-1, 8 * MARK_CELLS)).cast("q")
        self._spool_root = folder / "spool"
        self._ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        self._ledger.migrate()

    def sums(self) -> Sums:
        """Return what is spent, and held by jobs, by period, once all that journals hold is in the ledger."""
        spool = Spool(self._spool_root, self.spool.path)
        while not (batch := spool.read(100)).is_empty:
            self._ledger.apply(batch.entries + batch.finished)
            spool.applied(batch)
        held = sum(job.estimate_ns or 0 for job in self._ledger.open_jobs())
        spending = self._ledger.spent_since(0)
        return {"day": (spending.keys.get("web", 0), held), "month": (spending.teams.get("design", 0), held)}

    def close(self) -> None:
        """End it."""
        self._ledger.close()
        self.spool.close()


HOMES: Final[dict[str, Callable[[], Home]]] = {
    "memory of one worker": lambda: Memory(1),
    "memory of two workers": lambda: Memory(2),
}


@pytest.fixture(params=HOMES)
def open_home(request: pytest.FixtureRequest) -> Callable[[], Home]:
    """Return what opens a home of budgets."""
    return HOMES[request.param]


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """Return folders, one for each life."""
    return (tmp_path / str(number) for number in itertools.count())


def test_a_death_at_any_step_leaves_budgets_as_the_ledger_has_them(
    open_home: Callable[[], Home], folders: Iterator[Path]
) -> None:
    """What is spent and what jobs hold, to the nanodollar."""
    for last in range(MOST_STEPS):
        home, folder = open_home(), next(folders)
        folder.mkdir()
        books = Books(folder)
        pid, code = _life(home, books, last)
        end = seal(books.spool.path, NAME, books.mark)
        told, known = home.settle_with_dead(pid, end), books.sums()
        assert told == known, f"died at step {last}"
        books.close()
        if code == 0:
            assert known == {"day": (8 + 1 + 5 + 0 + 3, 0), "month": (8 + 1 + 5 + 0 + 3, 0)}
            assert last > 20
            return
    pytest.fail("it never got to its end")


def _life(home: Home, books: Books, last: int) -> tuple[int, int]:
    """Let a worker live until that step; return its process id and how it ended."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            journal = Mortal(books.spool.path, books.mark, last)
            Life(home.worker(journal), journal, JobTable(sets=1)).live()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}
    return pid, code
