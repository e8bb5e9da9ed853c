"""A policy made known to everything that goes by it: endpoint labels, series at zero, and the workers' memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.ruleset import named_endpoints
from gateway.policy.credential import ANONYMOUS
from gateway.telemetry.metrics.initial_series import introduce

if TYPE_CHECKING:
    from gateway.config.policy_snapshot import PolicySnapshot
    from gateway.processes.shared import Shared
    from gateway.telemetry.metrics.counters import Region


class Publisher:
    """Publishes editions; one process at a time does."""

    def __init__(self, shared: Shared, region: Region) -> None:
        """Publish into the shared memory; series at zero go into `region`."""
        self._shared, self._region = shared, region
        self._keys: set[tuple[str, str]] = set()
        self._priced: set[str] = set()

    def move(self, region: Region) -> None:
        """Put new series into another region from now on, in a process that was forked; the others stay."""
        self._region = region

    def publish(self, policy: PolicySnapshot) -> int:
        """Hand a policy to the workers, once the metrics know it; return its generation."""
        document = policy.document
        self._shared.scoreboard.endpoints.configure(named_endpoints(document))
        priced = {price.endpoint for price in document.prices}
        keys = {(key.team, key.id) for key in document.keys}
        if document.clients.allow_unauthorized_requests:
            keys.add((ANONYMOUS.team, ANONYMOUS.key))
        introduce(self._region, keys - self._keys, endpoints=priced)
        if priced - self._priced:
            introduce(self._region, keys & self._keys, endpoints=priced - self._priced)
        self._keys, self._priced = keys, priced
        return self._shared.published.publish(policy.to_json())
