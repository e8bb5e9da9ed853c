"""The composition root: the only place that knows every concrete class of a worker.

A worker is one event loop with the data listener in front, libcurl behind, and its slot on the scoreboard in between.
"""

from __future__ import annotations

import asyncio
from time import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import structlog
from tornado.ioloop import PeriodicCallback

from gateway.fal.credential import Sender
from gateway.http.fields import CallerFields, OriginFields
from gateway.http.request_ids import RandomIds
from gateway.http.responses import Replies
from gateway.ingress.server import CallerServer
from gateway.ingress.timeouts import CallerTimeouts
from gateway.limits.limiter import Limiter
from gateway.limits.wait_queue import WaitQueue
from gateway.money.accounting import Accounting, Jobs
from gateway.money.fal_prices import with_quotes
from gateway.money.usage_page import SnapshotReader
from gateway.platform.fd_limit import most_connections
from gateway.platform.memory_pressure import LOOK_SECONDS, MemoryPressure, own_group
from gateway.policy.address import counted_peers
from gateway.policy.price import Estimates, Price
from gateway.processes.ledger_watch import WATCH_SECONDS, JournalWatch
from gateway.processes.rules import RulesReader
from gateway.proxy.application import ProxyApplication
from gateway.proxy.authorization import Authorizer
from gateway.proxy.services import Services
from gateway.state.job_search import JobSearch, LedgerQuestions
from gateway.state.memory.jobs import LocalJobs
from gateway.state.memory.store import LocalStore
from gateway.telemetry.log.refusal_sampler import RefusalSampler
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.tracing.tracer import finishing, open_tracer
from gateway.upstream.curl import CurlRelay
from gateway.upstream.options import CurlOptions, system_ca_file
from gateway.upstream.timeouts import OriginTimeouts
from gateway.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.policy_snapshot import PolicySnapshot
    from gateway.config.ruleset import Ruleset
    from gateway.config.settings import Settings
    from gateway.platform.poller import Poller
    from gateway.policy.job import Isolation
    from gateway.processes.shared import Shared
    from gateway.state.redis.store import RedisStore
    from gateway.telemetry.metrics.scoreboard import ProcessSlot

_SUMMARY_SECONDS: Final = 1.0
_FOLLOW_SECONDS: Final = 0.1  # until a policy that is in force elsewhere is so here
_OWN_FIELDS: Final = (
    b"x-fal-client-proxy: fal-gateway/" + VERSION.encode(),
    b"via: 1.1 fal-gateway",
    b"expect:",
)
"""Field lines that every request to the origin gets; `name:` takes out one of libcurl's own."""


class Worker:
    """One worker's parts, made within its running loop."""

    def __init__(self, poller: Poller, shared: Shared, slot: ProcessSlot) -> None:
        self._shared, self._slot = shared, slot
        settings, scoreboard = shared.settings, shared.scoreboard
        self._journal = shared.open_journal(slot)
        number = scoreboard.workers.index(slot)
        self._store = LocalStore(shared.quotas, slot=number, lines=self._journal)
        poller.at_end(self._write_down)
        before = self._write_down  # nothing is sent whose purchase is not written down
        options = _curl_options(settings)
        self.relay = CurlRelay(force_instance=True, poller=poller, options=options, alarm=_alarm, before=before)
        self.tracer = open_tracer(settings.tracing, RandomIds().next, shared.replica, ca_file=system_ca_file())
        self._refusals = RefusalSampler(finishing(shared.log.exchange, self.tracer))
        self._meter = Meter(slot.region, scoreboard.endpoints, emit=self._refusals.emit)
        shared.log.count_to(self._meter.count_dropped)
        if self.tracer is not None:
            self.tracer.count_to(self._meter.count_dropped_spans)
        self._to_origin, self._to_caller = OriginFields(_OWN_FIELDS), CallerFields()
        self._room = WaitQueue(asyncio.get_running_loop().call_later)
        self._shared_store = self._make_shared_store()
        store = self._shared_store.jobs if self._shared_store is not None else None
        self._questions = LedgerQuestions(shared.job_channel, number)
        self._job_search = JobSearch(store=store, ledger=self._questions)
        self._estimates = Estimates()
        self._snapshots = SnapshotReader(shared.statement)
        self._quoted = shared.quotes.generation
        self._rules = RulesReader(shared.published)
        self._followed, edition, rules = self._rules.read()
        services = self._services(edition, rules)
        slot.generation = self._followed
        pressure = MemoryPressure(own_group())
        self._journal_watch = JournalWatch(self._journal, self._meter)
        self._periodic = self._start_periodic(pressure)
        self.gate = ProxyApplication(
            services, max_inflight=settings.max_inflight, pressure=pressure, tracer=self.tracer
        )
        self.server = CallerServer(
            self.gate,
            poller,
            patience=CallerTimeouts(
                settings.client_header_timeout,
                settings.client_idle_timeout,
                settings.client_least_rate,
                settings.keepalive_timeout,
            ),
            max_connections=most_connections(),
            address_of=counted_peers(settings.trusted_proxies),
            report=_log_limited_connections,
        )

    def _start_periodic(self, pressure: MemoryPressure) -> list[PeriodicCallback]:
        """Begin what is done again and again."""
        calls = (
            (pressure.look, LOOK_SECONDS),
            (self._follow, _FOLLOW_SECONDS),
            (self._refusals.summarize, _SUMMARY_SECONDS),
            (self._journal_watch.look, WATCH_SECONDS),
        )
        periodic = [PeriodicCallback(call, seconds * 1000) for call, seconds in calls]
        for callback in periodic:
            callback.start()
        return periodic

    async def start(self) -> None:
        """Make ready what takes a while, before the first caller comes."""
        if self._shared_store is not None:
            await self._shared_store.start()

    def _make_shared_store(self) -> RedisStore | None:
        url = self._shared.settings.redis_url
        if url is None:
            return None
        from gateway.state.redis.store import RedisStore  # noqa: PLC0415 (10 MB, for those who use it)

        def on_change(up: bool) -> None:  # noqa: FBT001 (the store's shape)
            self._slot.is_store_away = not up
            if not up:
                self._meter.count_store_error()

        return RedisStore(
            url.get_secret_value(),
            replica=self._shared.replica,
            on_change=on_change,
            on_error=self._meter.count_store_error,
            lines=self._journal,
        )

    def _jobs(self, isolation: Isolation) -> Jobs:
        if self._shared_store is None:
            return LocalJobs(self._shared.jobs, self._note_closing)
        from gateway.state.redis.cached_jobs import CachedJobs  # noqa: PLC0415 (what it brings, for those who use it)

        await_row = self._questions.await_row if isolation != "none" else None
        return CachedJobs(self._shared_store.jobs, self._shared.jobs, await_row)

    def _note_closing(self, digest: bytes, state: int) -> None:
        number = self._shared.scoreboard.workers.index(self._slot)
        self._shared.job_closings.note(number, digest, state, self._journal)

    def _write_down(self) -> bool:
        """Write what this turn changed; purses first, marked with what the journal has to tell for it to be true."""
        self._store.write()
        if self._shared_store is not None:
            self._shared_store.purses.write()
        self._journal.flush()
        return False

    def _services(self, edition: PolicySnapshot, rules: Ruleset) -> Services:
        """Return what exchanges work with under this policy; those under way keep the services that they began with."""
        shared, settings = self._shared, self._shared.settings
        later = asyncio.get_running_loop().call_later
        shared.scoreboard.endpoints.configure(rules.named_endpoints)
        own_key = settings.fal_key.get_secret_value() if settings.fal_key else ""
        return Services(
            authorizer=Authorizer(rules, max_body_bytes=settings.max_body_bytes, find_job=shared.jobs.find),
            upstream=self.relay.engine,
            meter=self._meter,
            to_origin=self._to_origin,
            sender=Sender(own_key, edition.team_keys, tags=rules.fal_tags),
            to_caller=self._to_caller,
            replies=Replies(rules.cors_origins),
            origins=_origins(settings),
            accounting=self._accounting(rules),
            find_job=self._job_search.finder(rules.isolate_jobs),
            limiter=Limiter(
                local=self._store,
                shared=self._shared_store,
                on_loss=rules.on_quota_loss,
                on_budget_loss=rules.on_budget_loss,
                counts=self._meter,
                room=self._room,
                later=later,
            ),
            statement=self._snapshots.read,
            trusted_proxies=settings.trusted_proxies,
            later=later,
            wall=time,
        )

    def _prices(self, rules: Ruleset) -> Mapping[str, Price]:
        quotes = self._shared.quotes
        if rules.price_source == "policy" or not quotes.generation:
            return rules.prices
        return with_quotes(rules.prices, quotes.read()[1])

    def _accounting(self, rules: Ruleset) -> Accounting:
        return Accounting(
            prices=self._prices(rules),
            budgets_of=lambda owner: rules.budgets.get(owner, ()),
            refuses_unpriced=rules.refuses_unpriced,
            store=self._shared_store.purses if self._shared_store is not None else self._store,
            jobs=self._jobs(rules.isolate_jobs),
            journal=self._journal,
            takings=self._meter,
            estimates=self._estimates,
            wall=time,
        )

    async def _follow(self) -> None:
        """Put a newer policy in force, where there is one.

        A thread reads it and makes its rules: the loop has its turn every 5 ms, where it would be held up for the time
        that this takes with many keys.
        """
        if self._shared_store is not None:
            self._slot.replicas = self._shared_store.replicas
        shared = self._shared
        if (shared.published.generation, shared.quotes.generation) == (self._followed, self._quoted):
            return
        self._quoted = shared.quotes.generation
        self._followed = shared.published.generation  # first, or a bug below would be logged ten times a second
        self._followed, edition, rules = await asyncio.to_thread(self._rules.read)
        self.gate.services = self._services(edition, rules)
        self._slot.generation = self._followed

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is under way, or an answer not yet taken by its caller."""
        return self.gate.inflight > 0 or self.server.is_busy

    def drain(self) -> None:
        """Take no more requests; those under way run on."""
        self.gate.draining = True
        self.server.drain()

    async def close(self) -> int:
        """Cut what is still open; returns how many exchanges that were."""
        for callback in self._periodic:
            callback.stop()
        cut = self.gate.stop()
        self.server.close_all()
        self.relay.close()
        self._job_search.close()
        if self._shared_store is not None:
            await self._shared_store.close()
        self._store.write()
        self._journal_watch.look()
        self._journal.close()
        return cut


def _log_limited_connections(closed: int, refused: int) -> None:
    structlog.get_logger().warning("connections_limited", limit=most_connections(), closed=closed, refused=refused)


def _alarm(event: str) -> None:
    structlog.get_logger().error(event)


def _curl_options(settings: Settings) -> CurlOptions:
    phases = OriginTimeouts(settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout)
    ca_file = str(settings.ca_file) if settings.ca_file else system_ca_file()
    return CurlOptions(phases=phases, ca_file=ca_file, max_transfers=settings.max_inflight + 1)


def _origins(settings: Settings) -> Mapping[str, str]:
    return MappingProxyType(
        {host: f"{base.scheme}://{base.netloc}{base.prefix}" for host, base in settings.origin_overrides.items()}
    )
