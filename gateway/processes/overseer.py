"""What the ledger process does about the world outside: prices and bills of fal's, warnings about budgets.

The decision: whatever asks the network has a thread of its own (falapi), and what comes back is taken up in the ledger
process's own turn, so that the database and the shared memory are touched by one thread only.
"""

from __future__ import annotations

from collections import deque
from time import monotonic, time
from typing import TYPE_CHECKING, Final

import structlog

from gateway.config.policy_snapshot import edition_of
from gateway.config.principals import team_credentials
from gateway.fal.api.client import HOST, FalApi
from gateway.ledger.errors import LedgerUnavailableError
from gateway.ledger.ledger import Ledger
from gateway.money.fal_prices import content_of
from gateway.money.price_feed import PriceFeed
from gateway.money.reconcile.hourly import Auditor
from gateway.money.usage_page import UsageSnapshot
from gateway.money.webhook import Webhook
from gateway.money.webhook_signature import BudgetWarning
from gateway.telemetry.metrics import families as metrics
from gateway.telemetry.metrics.initial_series import introduce
from gateway.telemetry.metrics.purchase_counter import clamped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.config.ruleset import Ruleset
    from gateway.fal.api.pricing import Quote
    from gateway.ledger.ledger import Change
    from gateway.money.budget_sync import BudgetSync
    from gateway.money.reconcile.compare import Drift
    from gateway.money.reconcile.run import Audit
    from gateway.policy.budget import Budget
    from gateway.processes.shared import Shared
    from gateway.state.memory.budgets import BudgetTotals
    from gateway.telemetry.metrics.counters import Region
    from gateway.telemetry.metrics.meter import Meter

_LOOK_SECONDS: Final = 1.0
_MOST_ZEROS: Final = 10_000  # pairs of key and endpoint: the gauges of money need room in the same memory
_CACHE_NAME: Final = "prices.json"


class Overseer:
    """Begun and ended with the ledger process; `tick` is called several times a second."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        shared: Shared,
        ledger: Ledger,
        *,
        keeper: BudgetSync,
        rules: Callable[[], Ruleset],
        region: Region,
        meter: Meter,
    ) -> None:
        self._shared, self._ledger, self._keeper = shared, ledger, keeper
        self._rules, self._region, self._meter = rules, region, meter
        self._statement = UsageSnapshot()
        self._audits: deque[Audit] = deque(maxlen=16)
        self._books: deque[dict[str, Quote]] = deque(maxlen=1)
        self._feed: PriceFeed | None = None
        self._webhook: Webhook | None = None
        self._webhook_of: tuple[str, str] | None = None
        # What the process before this one has shown: the next comparison may say nothing of it any more.
        left = (series for series in region.series() if series.family == metrics.BILLING_DRIFT.name)
        self._drifts = {series.labels[0]: region.cells[series.first] for series in left}
        self._warned: set[tuple[str, int, float]] = set()
        self._look_at = 0.0
        self._events = structlog.get_logger()
        self._auditor = self._start_auditor()

    # -- prices and bills -------------------------------------------------------------------------------------------

    def _api(self, key: str) -> FalApi:
        settings = self._shared.settings
        base = settings.origin_overrides.get(HOST)
        return FalApi(key, base_url=base.url if base else None, ca_file=str(settings.ca_file or "") or None)

    def _start_auditor(self) -> Auditor | None:
        key = self._shared.settings.fal_admin_key
        if key is None:
            return None
        url = self._shared.settings.database_url.get_secret_value()
        auditor = Auditor(
            self._api(key.get_secret_value()),
            lambda: Ledger(url),
            on_audit=self._audits.append,
            credentials=lambda: team_credentials(edition_of(self._shared.published.read()[1]).document),
        )
        auditor.start()
        return auditor

    def _follow_prices(self) -> None:
        """Begin to ask for prices where the policy says so, or leave off; hand on what has come."""
        wanted = self._rules().price_source == "fal"
        key = self._shared.settings.fal_key
        if wanted and self._feed is None and key is not None:
            cache = self._shared.spool_root / _CACHE_NAME
            self._feed = PriceFeed(self._api(key.get_secret_value()), on_prices=self._books.append, cache=cache)
            self._feed.start()
        elif not wanted and self._feed is not None:
            self._feed.close()
            self._feed = None
            self._books.clear()
            self._shared.quotes.publish(content_of({}))
        if self._feed is not None:
            for endpoint in (*self._shared.scoreboard.endpoints.seen(), *self._rules().named_endpoints):
                self._feed.want(endpoint)
        while self._books:
            quotes = self._books.popleft()
            self._shared.quotes.publish(content_of(quotes))
            self._introduce(quotes)

    def _introduce(self, quotes: Iterable[str]) -> None:
        """Start what is spent at the named endpoints among them at 0, as those do that the policy prices."""
        rules = self._rules()
        endpoints = rules.named_endpoints.intersection(quotes)
        if len(endpoints) * len(rules.keys) <= _MOST_ZEROS:
            introduce(self._region, [(team, key) for key, team in rules.keys], endpoints=endpoints)

    def _take_audits(self) -> None:
        while self._audits:
            audit = self._audits.popleft()
            self._keeper.on_reconciled(audit.changes)
            self.on_changed(audit.changes)
            self._drifts = drift_by_label(audit.found.drift, self._meter.label, shown=self._drifts)
            for label, drift_ns in self._drifts.items():
                self._set(metrics.BILLING_DRIFT, (label,), drift_ns)

    # -- told by the ledger process -----------------------------------------------------------------------------------

    def on_changed(self, changes: Sequence[Change]) -> None:
        """Take rows that changed."""
        self._statement.add(changes)

    def tick(self, *, is_up: bool) -> None:
        """Look at everything that is due; `is_up`: the database answers."""
        if monotonic() < self._look_at:
            return
        self._look_at = monotonic() + _LOOK_SECONDS
        self._follow_prices()
        self._take_audits()
        if not is_up:
            return
        try:
            self._warn()
            content = self._statement.content(self._ledger, self._keeper.purses(), now=time())
        except LedgerUnavailableError:  # said by the ledger writer with its next attempt
            return
        if content is not None:
            self._shared.statement.publish(content)

    def close(self) -> None:
        """End the threads, each within its bound."""
        for part in (self._feed, self._auditor, self._webhook):
            if part is not None:
                part.close()

    # -- warnings -----------------------------------------------------------------------------------------------------

    def _warn(self) -> None:
        for budget, purse in self._keeper.purses():
            for share in budget.warn_at:
                known = (budget.store_name, purse.start, share)
                if purse.start and known not in self._warned and purse.spent_ns >= share * budget.limit_ns:
                    self._warned.add(known)
                    if self._ledger.claim_warning(budget.store_name, purse.start, f"{share:g}"):
                        self._tell(budget, purse, share)
        if len(self._warned) > 100_000:  # noqa: PLR2004 (old periods: the ledger still knows them)
            self._warned.clear()

    def _tell(self, budget: Budget, purse: BudgetTotals, share: float) -> None:
        scope, _, owner = budget.owner.partition("/")
        warning = BudgetWarning(
            scope=scope,
            id=owner,
            period=budget.period,
            period_start=purse.start,
            share=share,
            limit_ns=budget.limit_ns,
            spent_ns=purse.spent_ns,
            reserved_ns=purse.held_ns,
            at=int(time()),
        )
        self._events.warning(
            "budget_warning",
            scope=scope,
            id=owner,
            period=budget.period,
            share=share,
            limit_ns=budget.limit_ns,
            spent_ns=purse.spent_ns,
        )
        self._meter.count_warning(scope, owner, budget.period)
        webhook = self._hook()
        if webhook is not None:
            webhook.send(warning)

    def _hook(self) -> Webhook | None:
        """Return the webhook of the policy in force."""
        wanted = self._rules().budget_webhook
        if wanted != self._webhook_of:
            if self._webhook is not None:
                self._webhook.close()
            ca_file = str(self._shared.settings.ca_file or "") or None
            self._webhook = None
            if wanted is not None:
                url, secret_name = wanted
                self._webhook = Webhook(url, self._shared.environ.get(secret_name, ""), ca_file=ca_file)
            self._webhook_of = wanted
        return self._webhook

    def _set(self, family: metrics.Family, labels: tuple[str, ...], value: int) -> None:
        cell = self._region.claim(family.name, labels)
        if cell is not None:
            self._region.cells[cell] = clamped(value)


def drift_by_label(
    found: Mapping[str, Drift], label_of: Callable[[str], str], *, shown: Iterable[str]
) -> dict[str, int]:
    """Return what a comparison found in nano-dollars, by label of the endpoint; 0 for those `shown` that it is not of.

    Without these a drift would be shown for ever of an endpoint that nobody calls any more.
    """
    sums = dict.fromkeys(shown, 0)
    for endpoint, drift in found.items():
        label = label_of(endpoint)
        sums[label] = sums.get(label, 0) + drift.drift_ns
    return sums
