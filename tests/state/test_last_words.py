"""What a killed worker had done is said in its name, and counts once."""

from __future__ import annotations

import asyncio
import contextlib
import os
from time import monotonic
from typing import TYPE_CHECKING, Final

import pytest

from gateway.bookkeeper import job_of
from gateway.ledger.ledger import Ledger
from gateway.policy.budget import Budget
from gateway.policy.quota import NO_LIMITS
from gateway.state.holdings import Hold, NoLines
from gateway.state.last_words import LastWords, Will, digest_of_key
from gateway.state.local import RecordLock
from gateway.state.redis_books import RedisBooks, SharedPurse
from gateway.state.redis_registers import Register, purse_key
from gateway.state.store import Ask
from gateway.treasury import YOUNG_SECONDS, Treasury
from tests.state.stage import PATIENT_SECONDS, judge, settled, watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.harness.redis import RedisServer
    from tests.state.stage import Watched

MONTH: Final = Budget("team/design", "month", 1_000, tag="design")
OTHER: Final = Budget("key/web", "month", 1_000, tag="design")
SUCCESSOR: Final = 1  # the process that sits where the dead one sat


@pytest.fixture
def words() -> Iterator[LastWords]:
    """Return a table."""
    made = LastWords(RecordLock(is_needed=True), places=8)
    yield made
    made.close()


class Gateway:
    """A worker over a real server, and the treasury of its gateway."""

    def __init__(self, server: RedisServer, folder: Path, words: LastWords, worker: Watched) -> None:
        self.words, self.worker = words, worker
        self.books = RedisBooks(server.url, "one")
        self.workers = [os.getpid()]
        self._ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self._ledger.migrate()

    def look(self, *budgets: Budget, workers: Callable[[], list[int]] | None = None) -> SharedPurse:
        """Let a new treasury look after the budgets once; return the first one's purse as it is then.

        `workers`: who is seated, each time that it is asked.
        """
        treasury = Treasury(
            self.books,
            self._ledger,
            replica="one",
            workers=workers or (lambda: self.workers),
            born_at=monotonic() - YOUNG_SECONDS - 60,
            last_words=self.words,
            job_of=job_of,
        )
        treasury.keep(budgets or (MONTH,), is_ledger_up=True)
        assert treasury.is_up
        return self.purse(*budgets)

    def purse(self, *budgets: Budget) -> SharedPurse:
        """Return a purse as it is now."""
        purse = self.books.purses(budgets or (MONTH,))[0]
        assert purse is not None
        return purse

    async def hold(self, estimate_ns: int, *, is_recorded: bool = True) -> Hold:
        """Let the worker get a hold, and write its purchase down; it writes at the end of the turn."""
        hold = Hold((MONTH,), estimate_ns)
        assert (await judge(self.worker.store, Ask("lease", NO_LIMITS, "", hold))).granted
        if is_recorded:
            self.worker.store.purses.record(hold)
        self.worker.store.purses.write()
        return hold

    def settle_unheard(self, hold: Hold, spent_ns: int) -> None:
        """Let a run end in a turn that is written, and of which the store hears nothing."""
        self.worker.store.purses.fall()
        self.worker.store.purses.settle(hold, spent_ns)
        self.worker.store.purses.write()

    def die(self) -> None:
        """Let the worker be gone: it says nothing any more, and another sits in its place."""
        self.worker.store.purses.fall()
        self.workers = [SUCCESSOR]

    def close(self) -> None:
        """End it."""
        self.books.close()
        self._ledger.close()


def play(server: RedisServer, folder: Path, words: LastWords, scenario: Callable[[Gateway], Awaitable[None]]) -> None:
    """Run a scenario; the budget is filled in, long ago, with nothing spent."""

    async def run() -> None:
        will = Will(words, os.getpid(), NoLines())
        async with watched(server.url, replica="one", patience_seconds=PATIENT_SECONDS, will=will) as worker:
            await worker.up()
            gateway = Gateway(server, folder, words, worker)
            with contextlib.closing(gateway):
                gateway.look()
                server.run("HSET", purse_key(MONTH).decode(), "opens", "0")
                await scenario(gateway)

    asyncio.run(run())


def test_what_a_killed_worker_settled_counts_as_settled(
    redis_server: RedisServer, tmp_path: Path, words: LastWords
) -> None:
    """The turn had been written and not told: its cost is spent, and only what it still held is at its estimate."""

    async def scenario(gateway: Gateway) -> None:
        dear, free, _ = [await gateway.hold(10) for _ in range(3)]
        gateway.settle_unheard(dear, 25)
        gateway.settle_unheard(free, 0)
        assert (gateway.purse().spent_ns, gateway.purse().held_ns) == (0, 30)
        gateway.die()
        told = gateway.look()
        assert (told.spent_ns, told.held_ns, told.holders) == (35, 0, {})
        told = gateway.look()
        assert (told.spent_ns, told.held_ns) == (35, 0), "what is said twice"

    play(redis_server, tmp_path, words, scenario)


def test_a_turn_that_was_not_written_counts_as_the_ledger_has_it(
    redis_server: RedisServer, tmp_path: Path, words: LastWords
) -> None:
    """The store had heard more than the journal: the ledger has the estimate, and so has the budget."""

    async def scenario(gateway: Gateway) -> None:
        hold = await gateway.hold(10)
        gateway.worker.store.purses.settle(hold, 2)
        await settled(lambda: gateway.purse().spent_ns == 2, "the statement")
        gateway.die()
        told = gateway.look()
        assert (told.spent_ns, told.held_ns) == (10, 0)

    play(redis_server, tmp_path, words, scenario)


def test_a_job_settled_by_who_holds_nothing_counts(redis_server: RedisServer, tmp_path: Path, words: LastWords) -> None:
    """A worker that never held anything of a purse, and was killed before it could say what a job came to."""

    async def scenario(gateway: Gateway) -> None:
        start = gateway.purse().start
        edition = int(redis_server.run("HGET", purse_key(MONTH).decode(), "edition"))
        register = Register(MONTH, start)
        register.begin(edition, 0)
        register.change(1, freed=0, spent=7, jobs=-4)
        words.keep(4_711, [register], NoLines())
        told = gateway.look()
        assert (told.spent_ns, told.jobs_ns) == (7 - 4, 0)
        assert gateway.look().spent_ns == 3

    play(redis_server, tmp_path, words, scenario)


def test_who_leaves_in_peace_is_not_spoken_for(redis_server: RedisServer, tmp_path: Path, words: LastWords) -> None:
    """Its last statement said it all, and the store has forgotten it since."""

    async def scenario(gateway: Gateway) -> None:
        hold = await gateway.hold(10)
        gateway.worker.store.purses.settle(hold, 3)
        await gateway.worker.store.close()
        gateway.worker.store.purses.write()  # a turn ends behind its last word
        assert (gateway.purse().spent_ns, gateway.purse().holders) == (3, {})
        gateway.workers = [SUCCESSOR]
        assert gateway.look().spent_ns == 3

    play(redis_server, tmp_path, words, scenario)


def test_what_was_granted_and_not_written_down_is_not_spent(
    redis_server: RedisServer, tmp_path: Path, words: LastWords
) -> None:
    """Nothing of it was sent, and the ledger never hears of it; whether its word was kept behind the grant or not."""

    async def scenario(gateway: Gateway) -> None:
        await gateway.hold(10)
        await gateway.hold(20, is_recorded=False)
        unheard = Hold((MONTH,), 40)
        assert (await judge(gateway.worker.store, Ask("lease", NO_LIMITS, "", unheard))).granted
        assert gateway.purse().held_ns == 70
        gateway.die()
        told = gateway.look()
        assert (told.spent_ns, told.held_ns, told.holders) == (10, 0, {})

    play(redis_server, tmp_path, words, scenario)


def test_a_first_grant_that_was_not_written_down_is_not_spent(
    redis_server: RedisServer, tmp_path: Path, words: LastWords
) -> None:
    """Its worker had said nothing of that purse yet, and died before the turn was over, or before it heard of it."""

    async def scenario(gateway: Gateway) -> None:
        hold = Hold((MONTH,), 40)
        assert (await judge(gateway.worker.store, Ask("lease", NO_LIMITS, "", hold))).granted
        assert gateway.purse().held_ns == 40
        gateway.die()
        told = gateway.look()
        assert (told.spent_ns, told.held_ns, told.holders) == (0, 0, {})

    play(redis_server, tmp_path, words, scenario)


def test_a_first_grant_of_a_new_period_is_not_spent_either(
    redis_server: RedisServer, tmp_path: Path, words: LastWords
) -> None:
    """What its worker had said is of the period before: a purse moved on stands for midnight."""

    async def scenario(gateway: Gateway) -> None:
        await gateway.hold(10)
        start = gateway.purse().start
        holder = f"g:one:{os.getpid()}"
        redis_server.run("HSET", purse_key(MONTH).decode(), "start", str(start + 1), holder, "40", "held", "40")
        gateway.die()
        told = gateway.look()
        assert (told.spent_ns, told.held_ns, told.holders) == (0, 0, {})

    play(redis_server, tmp_path, words, scenario)


def test_who_dies_within_a_look_is_spoken_for_by_the_next(
    redis_server: RedisServer, tmp_path: Path, words: LastWords
) -> None:
    """Else the store would have forgotten whose word it is, and count it once more."""

    async def scenario(gateway: Gateway) -> None:
        hold = await gateway.hold(10)
        gateway.worker.store.purses.settle(hold, 25)
        gateway.worker.store.purses.write()
        await settled(lambda: gateway.purse().spent_ns == 25, "the statement")
        seated = iter([gateway.workers])
        gateway.die()
        successors = gateway.workers
        told = gateway.look(workers=lambda: next(seated, successors))
        assert (told.spent_ns, len(told.holders)) == (25, 1)
        told = gateway.look()
        assert (told.spent_ns, told.holders) == (25, {})

    play(redis_server, tmp_path, words, scenario)


def test_the_living_are_not_spoken_for(redis_server: RedisServer, tmp_path: Path, words: LastWords) -> None:
    """Nor is anything of theirs swept."""

    async def scenario(gateway: Gateway) -> None:
        await gateway.hold(10)
        told = gateway.look()
        assert (told.spent_ns, told.held_ns) == (0, 10)

    play(redis_server, tmp_path, words, scenario)


def test_a_word_of_an_edition_that_was_lost_is_not_taken(
    redis_server: RedisServer, tmp_path: Path, words: LastWords
) -> None:
    """The ledger has filled the purse in anew, with what it knew."""

    async def scenario(gateway: Gateway) -> None:
        hold = await gateway.hold(10)
        gateway.settle_unheard(hold, 3)
        redis_server.run("DEL", purse_key(MONTH).decode())
        gateway.die()
        gateway.look()
        assert gateway.look().spent_ns == 0
        assert words.of_dead(gateway.workers) == []

    play(redis_server, tmp_path, words, scenario)


def test_a_word_is_told_when_the_store_is_back(redis_server: RedisServer, tmp_path: Path, words: LastWords) -> None:
    """It is kept until then; and a budget that no policy has any more is nobody's."""

    async def scenario(gateway: Gateway) -> None:
        hold = await gateway.hold(10)
        gateway.settle_unheard(hold, 3)
        gateway.die()
        (word,) = words.of_dead(gateway.workers)
        assert (word.spent_ns, word.held_ns, word.budget) == (3, 0, digest_of_key(purse_key(MONTH)))
        gateway.look(OTHER)
        assert words.of_dead(gateway.workers) == []
        assert gateway.look().spent_ns == 10, "swept, as it had not been told"

    play(redis_server, tmp_path, words, scenario)


def test_who_asks_anew_keeps_its_word(words: LastWords) -> None:
    """A budget that went to another team and came back; one who comes to a dead one's process id begins anew."""
    register = Register(MONTH, 1)
    register.begin(7, 0)
    register.change(1, freed=0, spent=5, jobs=0)
    words.keep(4_711, [register], NoLines())
    words.announce(4_711, register.key)
    (word,) = words.of_dead([])
    assert (word.start, word.edition, word.spent_ns) == (1, 7, 5)
    words.forget(word)
    words.announce(4_711, register.key)
    (word,) = words.of_dead([])
    assert (word.start, word.edition, word.spent_ns) == (0, 0, 0)


def test_words_of_the_longest_silence_make_room() -> None:
    """A table that is full loses what was said first."""
    words = LastWords(RecordLock(is_needed=True), places=4)
    for pid in range(1, 6):
        words.keep(pid, [Register(MONTH, 1)], NoLines())
    assert sorted(word.pid for word in words.of_dead([])) == [2, 3, 4, 5]
    assert [word.pid for word in words.of_dead([2, 3, 4])] == [5]
    words.close()
