"""What must hold when all faults are over: waited for while it may still come right, then judged.

The decision it carries: conditions that come right by themselves (holds, slots, journals, budgets) have a bound of
time from the last fault's end; what can only have gone wrong (an execution twice, another's answer, a secret in a log)
is judged once, at the end.
"""

from __future__ import annotations

import http.client
import re
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError

from tests.chaos import accounts, logs
from tests.chaos.tenants import BUDGETS, LARGE, REVOKED, SLOTS, WITH_SLOTS
from tests.harness.client import RawClient
from tests.harness.messages import proxy_request
from tests.harness.wire import Malformed, Truncated
from tests.money.market import Books, bill_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.chaos.injector import Strike
    from tests.chaos.observed import Call, Observed
    from tests.chaos.replica import Replica
    from tests.chaos.site import Site
    from tests.harness.policy import GatewayKey

SETTLE_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 1.0
MEMORY_GROWTH: Final = 1.5
MEMORY_ALLOWANCE_BYTES: Final = 64 << 20
REVOKED_SECONDS: Final = 5.0
"""Within which every gateway refuses a key that was taken out of the policy."""
KEY_TAG: Final = re.compile(r"gw\.key=([a-z0-9._-]+)")
MONEY_LOSING: Final = ("redis_flushed", "redis_restarted_empty", "redis_restored", "redis_evicted")
"""Faults behind which a small budget may be passed until the audit has found it."""


class Audit:
    """One site's audit; `memory` is what each gateway used after it had warmed up, by name."""

    def __init__(self, site: Site, seen: Observed, strikes: Iterable[Strike], memory: dict[str, int]) -> None:
        self._site = site
        self._seen = seen
        self._strikes = list(strikes)
        self._memory = memory
        self._books = Books(site.database_url)
        self._began_at = time.monotonic()
        self.settled_seconds: dict[str, float] = {}

    def run(self, revive: Callable[[], object]) -> list[str]:
        """Wait for what comes right by itself, judge the rest; return every violation as a sentence."""
        problems = self._wait(self._not_ready, "ready", revive)
        problems += self._wait(self._not_open, "open", revive)
        problems += self._wait(self._not_settled, "settled", revive)
        problems += self._final()
        self._books.close()
        return problems

    def _wait(self, look: Callable[[], list[str]], what: str, revive: Callable[[], object]) -> list[str]:
        """Look until nothing is wrong, or the time since the last fault is over; return what is wrong then."""
        while (problems := look()) and time.monotonic() < self._began_at + SETTLE_SECONDS:
            revive()
            time.sleep(LOOK_SECONDS)
        self.settled_seconds[what] = time.monotonic() - self._began_at
        return [f"after {SETTLE_SECONDS:g} s: {problem}" for problem in problems]

    # -- what comes right by itself -----------------------------------------------------------------------------

    def _not_ready(self) -> list[str]:
        return [
            f"{each.name} is not ready" for each in self._site.replicas if each.has_ended() or not each.gateway.ready()
        ]

    def _not_open(self) -> list[str]:
        """Call each gateway with each key: 200, or 402 where a small budget is spent; free places are all free."""
        return [
            f"{replica.name}, key {key.id}: {problem}"
            for replica in self._site.replicas
            for key in self._site.tenants.keys.values()
            if (problem := self._probe(replica, key))
        ]

    def _probe(self, replica: Replica, key: GatewayKey) -> str:
        body = f'{{"prompt": "probe {replica.name} {key.id} {time.monotonic_ns()}"}}'.encode()
        request = proxy_request("https://fal.run/fal-ai/flux/dev", key=key, body=body)
        try:
            with RawClient(replica.port) as client:
                answer = client.ask(request)
        except (OSError, Truncated, Malformed) as fault:
            return repr(fault)
        if answer.status == http.client.PAYMENT_REQUIRED and _is_small(key.id):
            return ""
        if answer.status != http.client.OK:
            return f"{answer.status} {answer.body[:200]!r}"
        left = answer.field("ratelimit") or ""
        if key.id == WITH_SLOTS and f'"parallel";r={SLOTS - 1}' not in left:
            return f"slots are taken: {left}"
        return ""

    def _not_settled(self) -> list[str]:
        try:
            entries = self._books.entries()
            problems = accounts.held(entries)
            for replica in self._site.replicas:
                metrics = replica.gateway.metrics()
                problems += [
                    f"{replica.name}: {problem}"
                    for problem in accounts.budgets_differ(metrics, entries, now=time.time())
                ]
                for name, expected in (
                    ("inflight_requests", 0),
                    ("ledger_spool_bytes", 0),
                    ("ledger_up", 1),
                    ("state_store_up", 1),
                ):
                    value = metrics.value(name)
                    problems += [f"{replica.name}: {name} is {value:g}"] if value != expected else []
        except (OSError, AssertionError, SQLAlchemyError, http.client.HTTPException) as fault:
            return [f"cannot be read: {fault!r}"]
        return problems

    # -- what can only have gone wrong --------------------------------------------------------------------------

    def _final(self) -> list[str]:
        entries = self._books.entries()
        bill = bill_of(self._site.emulator)
        executions = [_execution(visit) for visit in self._site.emulator.executions()]
        problems = [*self._seen.problems, *accounts.twice_executed(executions), *accounts.twice_in_the_ledger(entries)]
        problems += accounts.unlike_the_bill(entries, bill)
        told_lost = sum(
            event["purchases"]
            for replica in self._site.replicas
            for path in replica.logs()
            for event in logs.events_of(path, "purchases_lost")
        )
        problems += accounts.missing_from_the_ledger(entries, executions, bill, told_lost=told_lost)
        if not any(strike.fault.kind in MONEY_LOSING for strike in self._strikes):
            problems += [
                problem for limit in BUDGETS for problem in accounts.budget_passed(limit, entries, now=time.time())
            ]
        for replica in self._site.replicas:
            problems += self._of_replica(replica)
        return problems

    def _of_replica(self, replica: Replica) -> list[str]:
        events = [event for path in replica.logs() for event in logs.exchanges(path)]
        present = logs.exchanges(replica.folder / "stderr.txt")
        calls = [call for call in self._seen.calls if call.port == replica.port]
        disturbed = [*replica.kills, *self._disk_faults(replica)]
        problems = [*replica.problems, *logs.leaks(replica.logs(), self._site.secrets()), *logs.repeated(events)]
        problems += logs.missing(calls, events, disturbed)
        problems += self._let_in_though_revoked(replica, calls)
        problems += logs.uncounted(present, replica.gateway.metrics(), kills=replica.kills_in_life)
        problems += [f"pid {each.pid} of an earlier life still runs" for each in replica.leftovers()]
        before, after = self._memory[replica.name], replica.gateway.rss()
        if after > before * MEMORY_GROWTH + MEMORY_ALLOWANCE_BYTES:
            problems.append(f"memory grew from {before >> 20} to {after >> 20} MiB")
        return [f"{replica.name}: {problem}" for problem in problems]

    def _let_in_though_revoked(self, replica: Replica, calls: list[Call]) -> list[str]:
        """Return the calls of a revoked key that were answered, where nothing else disturbed the gateway meanwhile."""
        own = [strike for strike in self._strikes if strike.fault.resource == replica.name]
        found = []
        for strike in self._strikes:
            since, until = strike.began_at + REVOKED_SECONDS, strike.ended_at
            is_disturbed = any(other.began_at < until and other.ended_at > strike.began_at - 10 for other in own)
            if strike.fault.kind == "policy_key_revoked" and not is_disturbed:
                found += [
                    call
                    for call in calls
                    if call.key == REVOKED
                    and call.status == http.client.OK
                    and since < call.began_at
                    and call.ended_at < until
                ]
        return [f"a revoked key was let in: {found}"] if found else []

    def _disk_faults(self, replica: Replica) -> list[float]:
        """Return moments within the times at which the disk was full, where it takes the log too."""
        return (
            []
            if replica.disk.is_own
            else [
                strike.began_at + second
                for strike in self._strikes
                if strike.fault.kind == "full_disk" and strike.fault.resource == replica.name
                for second in range(int(strike.ended_at - strike.began_at) + 2)
            ]
        )


def _is_small(key_id: str) -> bool:
    return any(limit.id == key_id and limit.usd != LARGE for limit in BUDGETS)


def _execution(visit: dict[str, Any]) -> dict[str, str]:
    """Return what of the emulator's record is compared: the request, its content, its key, its endpoint."""
    tags = " ".join(value for name, value in visit["fields"] if name == "x-fal-tags")
    found = KEY_TAG.search(tags)
    return {
        "request_id": visit["request_id"],
        "sha256": visit["sha256"],
        "key": found[1] if found else "",
        "endpoint": visit["endpoint"],
    }
