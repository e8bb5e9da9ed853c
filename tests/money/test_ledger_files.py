"""Files that are deleted, moved or replaced under a running gateway: noticed, nothing lost, used again when back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.gateway import Gateway
from tests.harness.waiting import until
from tests.money.market import Market, budget, buyer, market_policy, run_of
from tests.money.test_outages import BACK_SECONDS, COST_NS, is_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import Response
    from tests.harness.emulator import Emulator

KEY: Final = buyer("filed", budget("1000000"))
NOTICED_SECONDS: Final = 5.0


@pytest.fixture
def market(open_market: Callable[..., Market], fal: Emulator) -> Market:
    """Return a market whose ledger has one row, by name `KEY`."""
    market = open_market(fal, market_policy([KEY]), workers=2)
    market.entry(bought(market))
    return market


def bought(market: Market) -> Response:
    """Buy once, and check that it is answered."""
    answer = market.ask(KEY)
    assert answer.status == 200, answer
    return answer


def file_of(market: Market) -> Path:
    """Return the ledger's file."""
    return Path(market.books.url.removeprefix("sqlite:///"))


def wait_for_down(market: Market, reason: str) -> None:
    """Wait until the gateway has noticed, and says why."""
    until(lambda: is_up(market, up=False), "the file's loss to be noticed", timeout_seconds=NOTICED_SECONDS)
    market.gateway.wait_for_event("ledger_down", lambda event: reason in event["reason"])


def wait_for_up(market: Market) -> None:
    """Wait until the database takes what is written down again."""
    until(lambda: is_up(market, up=True), "the ledger's return", timeout_seconds=BACK_SECONDS)


def charged_ids(market: Market) -> set[str]:
    """Return the ids of all purchases in the ledger that were charged."""
    market.books.close()  # the file may be another one
    return {entry.id for entry in market.books.entries() if entry.status == "settled"}


def id_of(answer: Response) -> str:
    """Return the id of an answered purchase."""
    return str(answer.field("x-gateway-request-id"))


def test_a_database_file_that_is_moved_away_and_back(market: Market) -> None:
    """Calls go on, also under budgets; no new file is made, and what was bought meanwhile is in the old one."""
    before, file = charged_ids(market), file_of(market)
    file.rename(file.with_suffix(".away"))
    wait_for_down(market, "is missing")
    answers = [bought(market) for _ in range(3)]
    assert not file.exists()
    assert market.gateway.metrics().value("ledger_spool_bytes") > 0
    file.with_suffix(".away").rename(file)
    wait_for_up(market)
    for answer in answers:
        assert market.entry(answer).cost_ns == COST_NS
    assert charged_ids(market) == before | {id_of(answer) for answer in answers}
    assert market.gateway.events("process_died") == []


def test_a_database_file_that_is_deleted_and_restored(market: Market) -> None:
    """A backup at its place is used; the log of the deleted file is not applied to it, and gets another name."""
    file = file_of(market)
    with (
        contextlib.closing(sqlite3.connect(file)) as source,
        contextlib.closing(sqlite3.connect(file.with_suffix(".backup"))) as copy,
    ):
        source.backup(copy)
    backed_up = charged_ids(market)
    forgotten = bought(market)
    market.entry(forgotten)
    market.books.close()
    file.unlink()
    wait_for_down(market, "is missing")
    answers = [bought(market) for _ in range(2)]
    file.with_suffix(".backup").rename(file)
    wait_for_up(market)
    for answer in answers:
        assert market.entry(answer).cost_ns == COST_NS
    assert charged_ids(market) == backed_up | {id_of(answer) for answer in answers}
    assert list(file.parent.glob(f"{file.name}-wal.replaced-*"))
    with contextlib.closing(sqlite3.connect(file)) as check:
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_that_is_no_ledger_is_not_used(market: Market) -> None:
    """Put at the ledger's place it is left as it is; once the ledger is back, nothing is missing."""
    file = file_of(market)
    file.rename(file.with_suffix(".away"))
    file.write_bytes(b"not a database, and longer than the head that one begins with" * 20)
    content = file.read_bytes()
    wait_for_down(market, "is no ledger")
    answer = bought(market)
    assert file.read_bytes() == content
    file.with_suffix(".away").rename(file)
    wait_for_up(market)
    assert market.entry(answer).cost_ns == COST_NS


def test_a_spool_directory_that_is_deleted(market: Market) -> None:
    """It is made again, and what its journals held is written again: every purchase is in the ledger."""
    root = Path(f"{file_of(market)}.spool")
    before = charged_ids(market)
    with contextlib.closing(sqlite3.connect(file_of(market), isolation_level=None)) as locked:
        locked.execute("BEGIN IMMEDIATE")  # so that the journals hold what the ledger does not have
        answers = [bought(market) for _ in range(3)]
        shutil.rmtree(root)
        market.gateway.wait_for_event("spool_restored")
        locked.execute("ROLLBACK")
    until(lambda: market.gateway.events("journal_restored"), "the journals' return", timeout_seconds=BACK_SECONDS)
    answers.append(bought(market))
    for answer in answers:
        assert market.entry(answer).cost_ns == COST_NS
    assert charged_ids(market) == before | {id_of(answer) for answer in answers}
    assert market.gateway.events("process_died") == []
    wait_for_up(market)
    assert market.gateway.metrics().value("ledger_lost_purchases_total") == 0


def test_a_second_gateway_over_the_same_file(market: Market, tmp_path: Path) -> None:
    """It does not start, and says why: both would allow each budget in full. It does once the first one drains.

    Also where the spool directory, and the lock in it, was deleted meanwhile.
    """
    env = {"FALGW_DATABASE_URL": market.books.url}
    lock = Path(f"{file_of(market)}.spool", "serving.lock")
    shutil.rmtree(lock.parent)
    until(lock.exists, "the lock's return", timeout_seconds=BACK_SECONDS)
    second = Gateway(tmp_path / "second", policy=market.policy, env=env)
    until(lambda: second.process.exit_code is not None, "its end", timeout_seconds=BACK_SECONDS)
    assert second.process.exit_code == 1
    assert f"another gateway runs over the ledger {file_of(market)}" in second.process.stderr()
    second.close(expected=1)
    until(lambda: market.ask(KEY).status == 200, "the journals' return", timeout_seconds=BACK_SECONDS)
    with market.connect() as client:
        client.send(run_of(KEY, emulate="delay=3000"))
        market.gateway.process.signal(signal.SIGTERM)
        market.gateway.wait_for_event("gateway_draining")
        with Gateway(tmp_path / "third", policy=market.policy, env=env) as third:
            third.wait_ready()


def test_a_supervisor_that_is_killed_keeps_no_ledger(market: Market, tmp_path: Path) -> None:
    """Workers that outlive it do not keep the next gateway from its start."""
    with market.connect() as client:
        client.send(run_of(KEY, emulate="delay=5000"))
        until(lambda: market.gateway.metrics().value("inflight_requests") == 1, "a call under way")
        os.kill(market.gateway.pid, signal.SIGKILL)
        with Gateway(tmp_path / "next", policy=market.policy, env={"FALGW_DATABASE_URL": market.books.url}) as gateway:
            gateway.wait_ready()
    market.gateway.close(expected=None)
