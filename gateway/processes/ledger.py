"""The ledger process put together: the only place that knows all of its parts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from gateway.ledger.errors import LedgerNewerError
from gateway.ledger.ledger import Ledger
from gateway.ledger.spool import Spool
from gateway.ledger.spool_folder import keep_for_next
from gateway.ledger.writer import Gauges, LedgerWriter, Listeners, serve_ledger
from gateway.money.budget_sync import BudgetSync
from gateway.money.gauges import MoneyGauges
from gateway.money.job_answers import JobAnswers
from gateway.money.known_jobs import job_of
from gateway.platform.signals import STOP
from gateway.processes.overseer import Overseer
from gateway.processes.rules import RulesReader
from gateway.telemetry.metrics.ledger_health import LedgerHealth
from gateway.telemetry.metrics.scoreboard import ProcessSlot, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.config.ruleset import Ruleset
    from gateway.money.redis_budget_sync import RedisBudgetSync
    from gateway.platform.published import Published
    from gateway.processes.shared import Shared
    from gateway.telemetry.metrics.meter import Meter


class Rules:
    """The active rules, of the newest policy; `name_endpoints` is called with the endpoints that they name."""

    def __init__(self, published: Published, *, name_endpoints: Callable[[Iterable[str]], None]) -> None:
        self._published = published
        self._reader = RulesReader(published)
        self._name_endpoints = name_endpoints
        self._generation = 0
        self._rules: Ruleset | None = None

    def __call__(self) -> Ruleset:
        """Return them."""
        if self._rules is None or self._published.generation != self._generation:
            self._generation, _, self._rules = self._reader.read()
            self._name_endpoints(self._rules.named_endpoints)
        return self._rules


def run_ledger(shared: Shared, slot: ProcessSlot, meter: Meter) -> int:
    """Carry lines to the database and keep the sums, until asked to stop; return the exit code.

    EX_CONFIG at the gateway's start over a newer release's database. One that becomes so while the gateway runs (of
    several replicas one was upgraded first) is waited out, its journals kept.
    """
    try:
        _carry(shared, slot, meter)
    except LedgerNewerError as fault:
        structlog.get_logger().error("ledger_unusable", reason=str(fault))
        return os.EX_CONFIG
    return os.EX_OK


def _carry(shared: Shared, slot: ProcessSlot, meter: Meter) -> None:
    ledger = Ledger(shared.settings.database_url.get_secret_value())
    spool = Spool(shared.spool_root, shared.spool.path, is_awaited=shared.is_seated, predecessors=shared.predecessors)

    def ready() -> None:
        slot.state = State.READY

    rules = Rules(shared.published, name_endpoints=shared.scoreboard.endpoints.configure)
    budget_sync = _budget_sync(shared, ledger, spool)
    keeper = BudgetSync(
        ledger,
        quotas=shared.quotas,
        jobs=shared.jobs,
        meter=meter,
        rules=rules,
        ready=ready,
        budget_sync=budget_sync,
        apply_to=lambda ends: _apply_to(shared, spool, writer, ends),
        began_us=shared.began_us,
    )
    money_gauges = MoneyGauges(ledger, slot.region, purses=keeper.purses, label=meter.label)
    overseer = Overseer(shared, ledger, keeper=keeper, rules=rules, region=slot.region, meter=meter)

    answers = _answers(shared, budget_sync)
    answers.start()
    health = LedgerHealth(slot.ledger_health)

    def on_gauges(gauges: Gauges) -> None:
        health.show(is_up=gauges.is_up, read_bytes=shared.spool_bytes() - gauges.spool_bytes)
        answers.note(is_up=gauges.is_up)
        keeper.on_gauges(gauges)
        overseer.tick(is_up=gauges.is_up)
        money_gauges.show(gauges)

    def on_ready(up: bool) -> None:  # noqa: FBT001 (the listener's shape)
        money_gauges.show_totals(is_up=up)  # first: its endpoints were there before those that callers bring now
        keeper.on_ready(up)

    listeners = Listeners(on_ready, overseer.on_changed, keeper.on_finished, health.live, on_gauges)
    sharer = shared.replica if budget_sync is not None else ""
    writer = LedgerWriter(ledger, spool, listeners=listeners, may_make=not health.has_been_up, gateway=sharer)
    try:
        serve_ledger(writer, parent=shared.scoreboard.supervisor.pid, stop_signal=STOP)
        if not keeper.leave():
            keep_for_next(shared.spool.path)
    finally:
        overseer.close()


def _answers(shared: Shared, budget_sync: RedisBudgetSync | None) -> JobAnswers:
    ledger = Ledger(shared.settings.database_url.get_secret_value())
    living = (lambda: budget_sync.life_signs.living) if budget_sync is not None else None
    return JobAnswers(shared.job_channel, ledger, job_of=job_of, living=living)


def _apply_to(shared: Shared, spool: Spool, writer: LedgerWriter, ends: Sequence[int]) -> bool:
    """Bring each worker's journal into the ledger up to a place; not while a dead one's is on its way there."""
    if spool.has_dead():
        return False
    return writer.apply_to(
        {shared.journal_name(slot): end for slot, end in zip(shared.scoreboard.workers, ends, strict=True)}
    )


def _budget_sync(shared: Shared, ledger: Ledger, spool: Spool) -> RedisBudgetSync | None:
    if shared.settings.redis_url is None:
        return None
    from gateway.money.redis_budget_sync import Journals, open_redis_budget_sync  # noqa: PLC0415 (10 MB, for those who use it)

    def journals() -> Journals:
        applied = {int(name.rpartition("-")[2]): place for name, place in spool.own_journals().items()}
        return Journals(applied, spool.adopted_to_the_end())

    def workers() -> list[int]:
        return [slot.pid for slot in shared.scoreboard.workers]

    url = shared.settings.redis_url.get_secret_value()
    return open_redis_budget_sync(url, shared.replica, ledger, workers=workers, journals=journals)
