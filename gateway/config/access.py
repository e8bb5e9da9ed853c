"""What callers can do at all under a policy, and why some can do nothing: known before any of them has called.

The decisions it carries:

* Somebody can call where an endpoint passes everything that the policy asks of a paid call but the amount of a budget
  (patterns of URLs, both lists of endpoints, a price where one is required), or where a realtime token is given out.
  Uploads count only where no pattern leads to endpoints. A policy through which nobody can call is refused at reload.
* A budget that admits no purchase is how an operator stops spending while jobs can still be fetched. It is accepted,
  with a warning.
* Only what is certain is reported: a price that fal will name, or units that are not known yet, may admit a call.
"""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.config.principals import anonymous_principal, key_principal, unit_price
from gateway.config.reach import Reach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.policy_schema import Document
    from gateway.policy.credential import Principal
    from gateway.policy.glob import GlobSet
    from gateway.policy.price import Price

_NO_KEY: Final = (
    "nobody can call: there is no key that has not expired, and clients.allow_unauthorized_requests is not true"
)
_NO_USABLE_KEY: Final = (
    "nobody can call: no key that has not expired can call anything, and"
    " clients.allow_unauthorized_requests is not true"
)
_SPLIT: Final = "no endpoint is allowed by both allowed_url_patterns and allowed_endpoints"
_NO_PURCHASE: Final = "nobody can buy: the budgets of all keys are too small for any call"
_ONE: Final = Decimal(1)


class Obstacle(Enum):
    """Why a caller can make no paid call, or nothing at all; the value says so."""

    TARGETS = f"can call nothing: in targets, {_SPLIT}"
    TOKENS = (
        "can call nothing: targets.allowed_url_patterns lead to realtime tokens only, and realtime.mode refuses them"
    )
    ENDPOINTS = "can call nothing: no endpoint is allowed by its allowed_endpoints and by targets"
    PRICE = (
        "can call nothing: it is under a budget, and no endpoint that it may call has a price; add one to prices, or"
        " set price_source: fal or unpriced_endpoints: allow"
    )
    BUDGET = "can buy nothing: its budget, or its team's, is less than any call that it may make is estimated at"


class Finding(NamedTuple):
    """What is the matter, and at which place of the policy."""

    place: str
    message: str


class Access:
    """What callers can do under a valid policy at a moment (`now` in seconds since the epoch)."""

    def __init__(self, document: Document, now: float) -> None:
        self._document = document
        self._now = now
        self._reach = Reach(document.targets.allowed_url_patterns, document.targets.allowed_endpoints)
        self._prices = {price.endpoint: unit_price(price) for price in document.prices}
        self._priced: dict[GlobSet | None, tuple[Price, ...]] = {}
        self._teams = {team.id: team for team in document.teams}
        self._anonymous = anonymous_principal(document.clients, document.realtime)

    @cached_property
    def is_closed(self) -> bool:
        """Whether nobody can call."""
        return not any(self._can_call(who) for _, who in self._callers())

    @cached_property
    def is_without_purchases(self) -> bool:
        """Whether somebody can call, and no budget admits a call that is paid."""
        return not self.is_closed and all(self._obstacle(who) is Obstacle.BUDGET for _, who in self._callers())

    def closed_findings(self) -> list[Finding]:
        """Return why nobody can call; nothing where somebody can."""
        if not self.is_closed:
            return []
        if next(self._callers(), None) is None:
            return [Finding("keys", _NO_KEY)]
        if self._is_split:
            return [Finding("targets", f"nobody can call: {_SPLIT}")]
        return [Finding("keys", _NO_USABLE_KEY), *self._caller_findings()]

    def findings(self) -> list[Finding]:
        """Return all that an operator should know: why nobody can call or buy, or why some cannot."""
        if self.is_closed:
            return self.closed_findings()
        if self._is_split:
            return [Finding("targets", _SPLIT)]
        unable = [Finding("keys", _NO_PURCHASE)] if self.is_without_purchases else []
        return [*unable, *self._caller_findings()]

    @cached_property
    def _is_split(self) -> bool:
        """Whether the two lists of `targets` have no endpoint in common."""
        return self._reach.names_endpoints and not self._reach.has_endpoint(None)

    def _callers(self) -> Iterator[tuple[str, Principal]]:
        """Yield all who are let in, and their places; keys are made into principals one by one."""
        if self._anonymous is not None:
            yield "clients.anonymous", self._anonymous
        for index, key in enumerate(self._document.keys):
            if key.expires_at is None or key.expires_at.timestamp() > self._now:
                yield f"keys[{index}]", key_principal(key, self._teams, realtime=self._document.realtime)

    def _caller_findings(self) -> Iterator[Finding]:
        for place, who in self._callers():
            obstacle = self._obstacle(who)
            if obstacle is not None and (obstacle is Obstacle.BUDGET or not self._can_call(who)):
                yield Finding(place, obstacle.value)

    def _can_call(self, who: Principal) -> bool:
        """Return whether a caller can do anything but upload."""
        has_tokens = self._reach.has_tokens and who.may_open_realtime and self._reach.has_app(who.endpoints)
        return has_tokens or self._obstacle(who) in {None, Obstacle.BUDGET}

    def _obstacle(self, who: Principal) -> Obstacle | None:
        """Return why a caller can make no paid call; where no pattern leads to endpoints, why it can call nothing."""
        reach = self._reach
        if not reach.names_endpoints:
            return None if reach.has_uploads or who.may_open_realtime else Obstacle.TOKENS
        if self._is_split:
            return Obstacle.TARGETS
        if not reach.has_endpoint(who.endpoints):
            return Obstacle.ENDPOINTS
        if not who.budgets:
            return None
        if not self._may_be_unpriced and not self._prices_for(who):
            return Obstacle.PRICE
        return None if self._can_afford(who) else Obstacle.BUDGET

    @property
    def _may_be_unpriced(self) -> bool:
        return self._document.unpriced_endpoints == "allow" or self._document.price_source == "fal"

    def _prices_for(self, who: Principal) -> tuple[Price, ...]:
        """Return the prices of what a caller may call."""
        known = self._priced.get(who.endpoints)
        if known is None:
            found = (price for endpoint, price in self._prices.items() if self._reach.admits(endpoint, who.endpoints))
            known = self._priced[who.endpoints] = tuple(found)
        return known

    def _can_afford(self, who: Principal) -> bool:
        """Return whether a call may fit all budgets of a caller."""
        limit_ns = min(budget.limit_ns for budget in who.budgets)
        if self._document.price_source == "fal" and limit_ns > 0:
            return True
        if any(_least_estimate_ns(price, limit_ns) <= limit_ns for price in self._prices_for(who)):
            return True
        return self._document.unpriced_endpoints == "allow" and self._has_unpriced(who)

    def _has_unpriced(self, who: Principal) -> bool:
        """Return whether a caller may call an endpoint without a price: it is estimated at 0."""
        own = who.endpoints.patterns if who.endpoints is not None else None
        lists = (each for each in (own, self._reach.endpoints) if each is not None)
        names = next((each for each in lists if not any("*" in name for name in each)), None)
        priced = frozenset(map(str.lower, self._prices))
        return names is None or any(
            name.lower() not in priced and self._reach.admits(name, who.endpoints) for name in names
        )


def _least_estimate_ns(price: Price, limit_ns: int) -> int:
    """Return the least that a call may be estimated at: usual units are learned from calls, once one was admitted."""
    if price.typical_ns is not None:
        return price.typical_ns
    return 0 if limit_ns > 0 else price.cost_ns(_ONE)
