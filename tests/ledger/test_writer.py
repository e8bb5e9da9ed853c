"""The ledger process: everything once, through restarts of the database, of itself, and beside another one."""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.ledger.daily_totals import DAY_US
from gateway.ledger.journal import Journal
from gateway.ledger.ledger import Ledger
from gateway.ledger.spool import Spool
from gateway.ledger.spool_folder import claim_folder
from gateway.ledger.writer import TICK_SECONDS, LedgerWriter, Listeners
from tests.harness.postgres import CANARY, PostgresServer
from tests.harness.waiting import until
from tests.ledger.rows import DEAD, ONE, TWO, Program, bound, held, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

START_SECONDS = 30.0


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """Run a PostgreSQL server that this test alone may stop."""
    with PostgresServer() as started:
        yield started


def wait_for(program: Program, name: str, *, timeout_seconds: float = START_SECONDS) -> list[Any]:
    """Wait until a program has told something, and return all that it told under that name."""
    return until(lambda: program.told(name), f"{name} of pid {program.pid}", timeout_seconds=timeout_seconds)


def purchases(ledger: Ledger) -> int:
    """Return how many purchases are settled in the ledger."""
    return sum(part.requests for part in ledger.usage(0, 2**52, by=("team",)) if part.source == "exact")


def last_gauges(keeper: Program) -> tuple[bool, int, float, int, int]:
    """Return (is up, spool bytes, oldest seconds, applied, skipped) as they were told last."""
    is_up, spool_bytes, oldest_seconds, applied, skipped = keeper.told("gauges")[-1]
    return is_up, spool_bytes, oldest_seconds, applied, skipped


def test_it_ends_where_its_parent_died_before_it_looked(
    url: str, spool_folder: Path, start_program: Callable[..., Program]
) -> None:
    """It applies what is there, once, and ends: a supervisor may be killed while this process still starts."""
    keeper = start_program("keeper", url, spool_folder, ONE, 2**22)  # no process has that id
    assert wait_for(keeper, "ready") == [True]
    assert keeper.wait(START_SECONDS) == 0


def test_what_workers_write_is_in_the_ledger_soon(
    url: str, spool_folder: Path, start_program: Callable[..., Program]
) -> None:
    """Two workers write while it runs; one ends in good order and one is killed with holds open; all is told."""
    keeper = start_program("keeper", url, spool_folder, ONE)
    assert wait_for(keeper, "ready") == [True]
    writers = [
        start_program("writer", spool_folder / ONE, f"w{first}", first, 500, left_open)
        for first, left_open in ((0, 0), (1_000, 3))
    ]
    for writer in writers:
        wait_for(writer, "written")
    ledger = Ledger(url)
    until(lambda: purchases(ledger) == 997, "all purchases in the ledger", timeout_seconds=START_SECONDS)
    assert ledger.holds(0, 2**52) == (3, 75_000_000)
    os.kill(writers[1].pid, signal.SIGKILL)
    [finished] = wait_for(keeper, "finished")
    assert finished == [held(number).id for number in (1_000, 1_001, 1_002)]
    until(lambda: ledger.holds(0, 2**52) == (0, 0), "holds of the dead writer finished")
    assert ledger.spent_since(0).teams == {"design": 997 * 50_000_000 + 3 * 25_000_000}
    writers[0].kill()
    until(lambda: not list((spool_folder / ONE).glob("*.lock"))[1:], "journals of both writers deleted")
    keeper.stop()
    assert list(spool_folder.iterdir()) == []
    changed = [change for changes in keeper.told("changed") for change in changes]
    assert len({row for _, status, row in changed if status == "settled"}) == 997
    assert len([row for _, status, row in changed if status == "settled"]) == 997
    ledger.close()


def test_a_database_that_is_stopped_loses_nothing(
    server: PostgresServer, spool_folder: Path, start_program: Callable[..., Program]
) -> None:
    """While it is away the spool grows and the gauges say so; when it is back every row is there, once."""
    url = server.new_database()
    keeper = start_program("keeper", url, spool_folder, ONE)
    assert wait_for(keeper, "ready") == [True]
    writer = start_program("writer", spool_folder / ONE, "w", 0, 0, 0)
    until(lambda: len(writer.told("bought")) > 200, "purchases before the stop")
    server.stop()
    until(lambda: not last_gauges(keeper)[0], "the gauges to say that it is away")
    bought = len(writer.told("bought"))
    until(lambda: len(writer.told("bought")) > bought + 500, "purchases while it is away")
    until(lambda: last_gauges(keeper)[1] > 100_000, "bytes in the spool")
    assert last_gauges(keeper)[2] > 0
    server.start()
    until(lambda: last_gauges(keeper)[0], "the gauges to say that it is back", timeout_seconds=START_SECONDS)
    writer.kill()
    until(lambda: not list((spool_folder / ONE).glob("w*")), "the journal applied and deleted", timeout_seconds=60)
    ledger = Ledger(url)
    assert purchases(ledger) - len(writer.told("bought")) in {0, 1}
    assert last_gauges(keeper)[1:3] == (0, 0.0)
    keeper.stop()
    events = [line for line in keeper.stderr().splitlines() if "ledger_down" in line or "ledger_up" in line]
    assert ["ledger_down" in line for line in events] == [False, True, False]
    assert CANARY not in keeper.stderr()
    ledger.close()


def test_a_database_that_is_not_there_at_the_start(
    server: PostgresServer, spool_folder: Path, start_program: Callable[..., Program]
) -> None:
    """It says so after the first attempt, and migrates and applies as soon as there is one."""
    url = server.new_database()
    server.stop()
    keeper = start_program("keeper", url, spool_folder, ONE)
    assert wait_for(keeper, "ready") == [False]
    journal = Journal(spool_folder / ONE, name="w")
    journal.append(settled(1).to_line())
    assert journal.flush()
    server.start()
    wait_for(keeper, "changed")
    ledger = Ledger(url)
    assert purchases(ledger) == 1
    ledger.close()
    journal.close()
    keeper.stop()


def test_an_unreadable_journal_is_one_state_while_others_go_on(spool_folder: Path, ledger: Ledger) -> None:
    """The ledger is down until the journal can be read, said once each way; what others write still arrives at once."""
    own = claim_folder(spool_folder, "own")
    journals = [Journal(own.path, name=name) for name in ("w", "x")]
    segment, kept = own.path / "w-000001.journal", own.path / "kept"
    written = iter(range(1, 2_000))

    def write(journal: Journal, lines: int) -> None:
        for _ in range(lines):
            journal.append(settled(next(written)).to_line())
        assert journal.flush()

    write(journals[0], 1)
    segment.rename(kept)
    segment.mkdir()
    amid = iter([60, 0, 0])
    """How many lines come while a batch is applied: more than what was there when its turn began."""
    listeners = Listeners(
        on_ready=lambda _: None,
        on_changed=lambda _: write(journals[1], next(amid, 0)),
        on_finished=lambda _: None,
        on_batch=lambda: None,
        on_gauges=lambda _: None,
    )
    writer = LedgerWriter(
        ledger, Spool(spool_folder, own.path), listeners=listeners, retention_days=400, may_make=False
    )
    with capture_logs() as events:
        for _ in range(3):
            write(journals[1], 1)
            assert not writer.work()
        assert purchases(ledger) == 63
        assert writer.delay_seconds == TICK_SECONDS
        segment.rmdir()
        kept.rename(segment)
        assert writer.work()
    assert [event["event"] for event in events] == ["ledger_down", "ledger_up"]
    assert events[0]["reason"] == f"a journal cannot be read: {segment}: Is a directory"
    assert purchases(ledger) == 64
    for journal in journals:
        journal.close()
    own.close()


def test_two_gateways_share_a_spool_and_a_database(
    url: str, spool_folder: Path, start_program: Callable[..., Program]
) -> None:
    """Both start at once beside what a dead gateway left, and every purchase is told to one of them, once."""
    dead = claim_folder(spool_folder, DEAD)
    left = Journal(dead.path, name="w", segment_bytes=16_384)
    for number in range(5_000, 5_300):
        left.append(held(number).to_line())
        left.append(settled(number).to_line() if number % 100 else bound(number).to_line())
        assert left.flush()
    left.close()
    dead.close()
    keepers = [start_program("keeper", url, spool_folder, name) for name in (ONE, TWO)]
    for keeper in keepers:
        assert wait_for(keeper, "ready") == [True]
    writers = [
        start_program("writer", spool_folder / name, "w", first, 300, 0) for name, first in ((ONE, 0), (TWO, 1_000))
    ]
    ledger = Ledger(url)
    until(lambda: purchases(ledger) == 897, "the purchases of all three", timeout_seconds=START_SECONDS)
    assert [row.fal_request_id for row in ledger.open_jobs()] == ["job-5000", "job-5100", "job-5200"]
    until(lambda: not dead.path.exists(), "the dead gateway's folder to go")
    for program in (*writers, *keepers):
        program.stop(expected=None)
    told = itertools.chain.from_iterable(changes for keeper in keepers for changes in keeper.told("changed"))
    assert sorted(row for _, status, row in told if status == "settled") == sorted(
        settled(number).id
        for number in (*range(300), *range(1_000, 1_300), *range(5_000, 5_300))
        if number < 5_000 or number % 100
    )
    ledger.close()


def test_a_killed_ledger_process_is_taken_up_by_the_next(
    url: str, spool_folder: Path, start_program: Callable[..., Program]
) -> None:
    """Killed at any moment, again and again: the next one goes on, and the ledger is exact."""
    folder = claim_folder(spool_folder, "held-open")
    folder.close()
    keeper = start_program("keeper", url, spool_folder, ONE)
    wait_for(keeper, "ready")
    writer = start_program("writer", spool_folder / ONE, "w", 0, 0, 0)
    for _ in range(3):
        seen = len(keeper.told("changed"))
        until(lambda: len(keeper.told("changed")) > seen + 1, "batches applied")  # noqa: B023 (used at once)
        os.kill(keeper.pid, signal.SIGKILL)
        keeper.wait(10)
        keeper = start_program("keeper", url, spool_folder, ONE)
        wait_for(keeper, "ready")
    writer.kill()
    until(lambda: not list((spool_folder / ONE).glob("w*")), "the journal applied and deleted", timeout_seconds=60)
    ledger = Ledger(url)
    assert purchases(ledger) - len(writer.told("bought")) in {0, 1}
    keeper.stop()
    ledger.close()


def test_sigterm_applies_what_is_left(url: str, spool_folder: Path, start_program: Callable[..., Program]) -> None:
    """The last lines of workers that have just ended are in the ledger when the process is gone."""
    keeper = start_program("keeper", url, spool_folder, ONE)
    wait_for(keeper, "ready")
    journal = Journal(spool_folder / ONE, name="w")
    journal.append(settled(1).to_line())
    journal.close()
    keeper.stop()
    ledger = Ledger(url)
    assert purchases(ledger) == 1
    assert list(spool_folder.iterdir()) == []
    ledger.close()


def test_sigterm_with_the_database_away_leaves_the_spool(
    server: PostgresServer, spool_folder: Path, start_program: Callable[..., Program]
) -> None:
    """It ends in time and in good order, and the next start, of any gateway, finds the lines."""
    url = server.new_database()
    keeper = start_program("keeper", url, spool_folder, ONE)
    wait_for(keeper, "ready")
    server.stop()
    journal = Journal(spool_folder / ONE, name="w")
    journal.append(settled(1).to_line())
    journal.close()
    keeper.stop()
    assert (spool_folder / ONE / "w-000001.journal").exists()
    server.start()
    successor = start_program("keeper", url, spool_folder, TWO)
    assert wait_for(successor, "ready") == [True]
    ledger = Ledger(url)
    assert purchases(ledger) == 1
    ledger.close()
    successor.stop()


def test_a_stop_does_not_wait_for_a_database_that_hangs(
    server: PostgresServer, spool_folder: Path, start_program: Callable[..., Program]
) -> None:
    """A statement that never ends is left after ten seconds; the lines stay."""
    keeper = start_program("keeper", server.new_database(), spool_folder, ONE)
    wait_for(keeper, "ready")
    with server.frozen():
        journal = Journal(spool_folder / ONE, name="w")
        journal.append(settled(1).to_line())
        journal.close()
        started = time.monotonic()
        keeper.stop(timeout_seconds=20, expected=-signal.SIGALRM)
        assert time.monotonic() - started < 15
    assert (spool_folder / ONE / "w-000001.journal").exists()


def test_old_rows_are_forgotten(url: str, spool_folder: Path, start_program: Callable[..., Program]) -> None:
    """What was admitted more than 400 days ago goes at the first attempt; what is younger stays."""
    now_us = time.time_ns() // 1_000
    ledger = Ledger(url)
    ledger.migrate()
    ledger.apply([settled(1, admitted_at_us=now_us - 401 * DAY_US), settled(2, admitted_at_us=now_us - 399 * DAY_US)])
    keeper = start_program("keeper", url, spool_folder, ONE)
    wait_for(keeper, "ready")
    assert purchases(ledger) == 1
    keeper.stop()
    ledger.close()
