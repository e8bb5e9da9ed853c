"""The ledger's health as operators see it: a process that hangs cannot say so, and another one does."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from tests.harness.postgres import PostgresServer
from tests.harness.prometheus import Prometheus
from tests.harness.waiting import until
from tests.money.market import Market, buyer, market_policy
from tests.money.test_outages import BACK_SECONDS, KEYS, Load, assert_all_there, is_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.emulator import Emulator


ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "helm" / "fal-gateway" / "files" / "rules.yaml"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """Run one PostgreSQL server for the module."""
    with PostgresServer() as server:
        yield server


def alert(name: str) -> str:
    """Return the expression of an alert that the chart installs."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return next(str(rule["expr"]) for group in groups for rule in group["rules"] if rule.get("alert") == name)


def spool_bytes(market: Market) -> float:
    """Return what waits for the database, as the metrics say."""
    return market.gateway.metrics().value("ledger_spool_bytes")


def test_a_database_that_hangs_is_seen(
    open_market: Callable[..., Market], fal: Emulator, postgres: PostgresServer, tmp_path: Path
) -> None:
    """No TCP error, no answer: `ledger_up` 0 and a growing spool though the ledger process is stuck; then all rows."""
    url = postgres.new_database()
    with open_market(fal, market_policy(KEYS), url=url) as market, Prometheus(tmp_path, scrape_seconds=1) as prometheus:
        prometheus.scrape({"gateway": [market.gateway.ops.removeprefix("http://")]})
        with Load(market) as load:
            load.goes_on()
            until(lambda: spool_bytes(market) == 0, "an empty spool")
            with postgres.frozen():
                until(lambda: is_up(market, up=False), "the hang to be noticed", timeout_seconds=BACK_SECONDS)
                before = spool_bytes(market)
                assert before > 0
                load.goes_on()
                assert spool_bytes(market) > before
                until(
                    lambda: prometheus.at(alert("FalGatewayLedgerDown"), time.time()),
                    "the alert's expression to hold",
                    timeout_seconds=BACK_SECONDS,
                )
                market.gateway.wait_for_event("ledger_stalled")
            until(lambda: is_up(market, up=True), "the ledger's return", timeout_seconds=BACK_SECONDS)
            load.end()
            assert_all_there(market, load)
            until(lambda: spool_bytes(market) == 0, "an empty spool")
            market.gateway.wait_for_event("ledger_resumed")


def test_a_ledger_process_that_is_stopped_is_seen(open_market: Callable[..., Market], fal: Emulator) -> None:
    """SIGSTOP: as with a database that hangs."""
    key = buyer("stopped")
    with open_market(fal, market_policy([key])) as market:
        assert market.ask(key).status == 200
        started = [event for event in market.gateway.events("process_started") if event["role"] == "ledger"]
        until(lambda: spool_bytes(market) == 0, "an empty spool")
        os.kill(started[0]["pid"], signal.SIGSTOP)
        assert market.ask(key).status == 200
        assert spool_bytes(market) > 0
        until(lambda: is_up(market, up=False), "the stop to be noticed", timeout_seconds=BACK_SECONDS)
        os.kill(started[0]["pid"], signal.SIGCONT)
        until(lambda: is_up(market, up=True), "the ledger's return", timeout_seconds=BACK_SECONDS)
        until(lambda: spool_bytes(market) == 0, "an empty spool")
