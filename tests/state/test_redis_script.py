"""The store's own rules against a plain model of them, on a clock that is set, also one that jumps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.policy.quota import BYTES, CONCURRENT, LEASE_SECONDS, REQUESTS, Decision, Limit, LimitSet
from gateway.state.redis.commands import Plan, read_verdict
from gateway.state.redis.scripts import ASK, CLOCK, MOVE, Script
from tests.state.stage import concurrent, content_bytes, limit_set, requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.state.redis.commands import Command
    from tests.harness.redis import RedisServer

HOUR: Final = 3600.0
NOON: Final = 90_000_000.0
MICROSECOND: Final = 1e-6


def words_of(packed: bytes) -> list[bytes]:
    """Return the words of packed RESP, without its count of words."""
    found = []
    while packed:
        length, packed = packed[1:].split(b"\r\n", 1)
        end = int(length)
        found.append(packed[:end])
        packed = packed[end + 2 :]
    return found


class Clocked:
    """The scripts on a server, run as they are but for the line that asks the server for the time."""

    def __init__(self, client: redis.Redis) -> None:
        self.now = NOON
        self._client: Any = client
        self._texts = {script.digest: script.text.decode().replace(CLOCK, SET_CLOCK) for script in (ASK, MOVE)}

    def run(self, command: Command | None) -> Any:  # noqa: ANN401 (whatever it answers)
        """Run a command at the time that is set."""
        if command is None:
            return None
        assert isinstance(command.script, Script)
        words = [*words_of(command.rest), b"%.17g" % self.now]
        return self._client.execute_command("EVAL", self._texts[command.script.digest], *words)


SET_CLOCK: Final = "\nlocal now = tonumber(ARGV[#ARGV])\n"


@dataclass(slots=True)
class Model:
    """The rules, once more: moments by limit, and deaths of leases by limit."""

    limits: LimitSet
    moments: dict[int, float] = field(default_factory=dict)
    leases: dict[int, dict[str, float]] = field(default_factory=dict)

    def moment(self, place: int, now: float) -> float:
        """Return when the bucket is full; one that is further ahead than it may be is spent and no more."""
        limit = self.limits.limits[place]
        ahead = limit.max_wait if limit.kind == REQUESTS else limit.window
        if self.moments.get(place, 0.0) > now + limit.span + ahead + 1.0:
            self.moments[place] = now + limit.span
        return max(self.moments.get(place, 0.0), now)

    def living(self, place: int, now: float) -> dict[str, float]:
        """Return the leases that live, none of them longer than one that is new."""
        most = now + LEASE_SECONDS
        alive = {name: end for name, end in self.leases.get(place, {}).items() if end > now}
        kept = {name: most if end >= most + 1.0 else end for name, end in alive.items()}
        self.leases[place] = kept
        return kept

    def over(self, place: int, now: float) -> float:
        """Return by how many seconds one unit more would pass the bucket."""
        limit = self.limits.limits[place]
        return self.moment(place, now) + limit.interval - now - limit.span

    def refuses(self, place: int, now: float) -> float | None:
        """Return how long one limit says no; None where it says yes."""
        limit = self.limits.limits[place]
        if limit.kind == CONCURRENT:
            return 1.0 if len(self.living(place, now)) >= limit.quota else None
        over = self.over(place, now)
        patience = limit.max_wait if limit.kind == REQUESTS else 0.0
        return over if over > patience + limit.interval * 0.01 else None

    def ask(self, lease: str, now: float) -> Decision:
        """Judge and take."""
        verdict = Decision()
        noes = [self.refuses(place, now) for place in range(len(self.limits.limits))]
        enforced = [not limit.shadow for limit in self.limits.limits]
        against = [place for place, no in enumerate(noes) if no is not None and enforced[place]]
        verdict.granted = not against
        verdict.refused_by = against[0] if against else -1
        verdict.retry_after = max((noes[place] or 0.0 for place in against), default=0.0)
        verdict.shadowed = [place for place, no in enumerate(noes) if no is not None and not enforced[place]]
        for place, limit in enumerate(self.limits.limits):
            if verdict.granted and noes[place] is None:
                self.take(place, limit, lease=lease, now=now, verdict=verdict)
            self.tell(place, limit, now=now, verdict=verdict)
        return verdict

    def take(self, place: int, limit: Limit, *, lease: str, now: float, verdict: Decision) -> None:
        """Take one unit, or one slot."""
        if limit.kind == CONCURRENT:
            self.leases[place][lease] = now + LEASE_SECONDS
        elif limit.kind == REQUESTS:
            over = self.over(place, now)
            if not limit.shadow and over > limit.interval * 0.01:
                verdict.delay = max(verdict.delay, over)
            self.moments[place] = self.moment(place, now) + limit.interval

    def tell(self, place: int, limit: Limit, *, now: float, verdict: Decision) -> None:
        """Say what is left."""
        if limit.kind == CONCURRENT:
            verdict.remaining.append(max(0, limit.quota - len(self.living(place, now))))
            verdict.waits.append(-1.0)
            return
        ahead = self.moment(place, now) - now
        units = (limit.span - ahead) / limit.interval
        left = max(0, int(units + 0.01)) if units > -0.01 else 0
        verdict.remaining.append(left)
        one_more = (left + 1 - units) * limit.interval if ahead > 0 else 0.0
        verdict.waits.append(ahead if limit.kind == BYTES else one_more)

    def move(self, kind: int, units: int, now: float) -> None:
        """Charge, or give back."""
        for place, limit in enumerate(self.limits.limits):
            if limit.kind == kind:
                ahead = limit.max_wait if kind == REQUESTS else limit.window
                moved = min(self.moment(place, now) + units * limit.interval, now + limit.span + ahead)
                self.moments[place] = moved if moved > now else 0.0


@pytest.fixture
def clocked(redis_server: RedisServer) -> Iterator[Callable[[], Clocked]]:
    """Return `clocked()`: the scripts over an empty store."""
    with redis.Redis(port=redis_server.port, protocol=2) as client:

        def make() -> Clocked:
            client.flushall()
            return Clocked(client)

        yield make


def same(told: Decision, due: Decision) -> None:
    """Assert that two verdicts are one: the script tells times rounded up to whole microseconds."""
    for name in ("granted", "refused_by", "shadowed", "remaining"):
        assert getattr(told, name) == getattr(due, name), name
    times = ([told.delay, told.retry_after, *told.waits], [due.delay, due.retry_after, *due.waits])
    assert times[0] == pytest.approx(times[1], rel=1e-9, abs=2 * MICROSECOND)


LIMITS: Final = limit_set(
    requests(7, 70.0, burst=3, max_wait=15.0),
    requests(5, 100.0, name="tried", shadow=True),
    content_bytes(1000, 100.0, burst=300),
    concurrent(4),
    concurrent(2, name="few", shadow=True),
)
STEPS: Final = st.one_of(
    st.just(("ask", 0.0)),
    st.just(("ask", 0.0)),
    st.tuples(st.just("undo"), st.just(0.0)),
    st.tuples(st.just("charge"), st.integers(1, 700).map(float)),
    st.tuples(st.just("pass"), st.floats(0.0, 40.0)),
    st.tuples(st.just("pass"), st.sampled_from([HOUR, -HOUR])),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(STEPS, max_size=40))
def test_the_script_keeps_the_rules_of_the_model(
    clocked: Callable[[], Clocked], steps: list[tuple[str, float]]
) -> None:
    """Over any sequence of asks, charges, undos and steps of time both say and take the same."""
    store, model, plan = clocked(), Model(LIMITS), Plan(LIMITS, "")
    for number, (step, amount) in enumerate(steps):
        if step == "pass":
            store.now += amount
        elif step == "ask":
            told = read_verdict(store.run(plan.ask(b"%d" % number)), plan.width)
            same(told, model.ask(str(number), store.now))
        elif step == "charge":
            store.run(plan.charge(int(amount)))
            model.move(BYTES, int(amount), store.now)
        else:
            store.run(plan.undo(()))
            model.move(REQUESTS, -1, store.now)


def test_a_clock_that_goes_back_locks_nobody(clocked: Callable[[], Clocked]) -> None:
    """An hour back, a spent bucket is spent and no more: a unit comes after one interval, slots after one lease."""
    store, plan = clocked(), Plan(limit_set(requests(2, 20.0), concurrent(2)), "")
    for number in range(2):
        store.run(plan.ask(b"%d" % number))
    store.now -= HOUR
    refused = read_verdict(store.run(plan.ask(b"a")), plan.width)
    assert (refused.granted, refused.remaining) == (False, [0, 0])
    assert refused.retry_after == pytest.approx(10.0)
    store.now += 10.0
    assert read_verdict(store.run(plan.ask(b"b")), plan.width).refused_by == 1
    store.now += LEASE_SECONDS - 10.0 + 0.001
    assert read_verdict(store.run(plan.ask(b"c")), plan.width).granted


def test_a_clock_that_goes_ahead_frees_one_bucket(clocked: Callable[[], Clocked]) -> None:
    """An hour on, a spent bucket is full and no fuller."""
    store, plan = clocked(), Plan(limit_set(requests(3, 30.0)), "")
    for _ in range(2):
        granted = [read_verdict(store.run(plan.ask(b"x")), plan.width).granted for _ in range(5)]
        assert granted == [True, True, True, False, False]
        store.now += HOUR


def test_rounding_costs_nobody_a_unit(clocked: Callable[[], Clocked]) -> None:
    """A bucket whose interval no double can hold gives its whole burst, in one moment and after any time."""
    store, plan = clocked(), Plan(limit_set(requests(1000, 0.7)), "")
    for _ in range(3):
        granted = sum(read_verdict(store.run(plan.ask(b"x")), plan.width).granted for _ in range(1010))
        assert granted == 1000
        store.now += 0.7


def test_one_unit_each_interval_is_granted_for_ever(clocked: Callable[[], Clocked]) -> None:
    """Asking exactly at the rate, with a bucket of one, never meets a refusal."""
    store, plan = clocked(), Plan(limit_set(requests(3, 1.0, burst=1)), "")
    for _ in range(500):
        assert read_verdict(store.run(plan.ask(b"x")), plan.width).granted
        store.now += 1.0 / 3.0


def test_every_key_ends_by_itself(clocked: Callable[[], Clocked], redis_server: RedisServer) -> None:
    """Nothing stays for ever: each key has a time to live that is no longer than what it has to say."""
    store, plan = clocked(), Plan(limit_set(requests(2, 20.0), content_bytes(10, 50.0), concurrent(2)), "")
    store.run(plan.ask(b"x"))
    store.run(plan.charge(1000))
    lives = {key.rsplit("/", 1)[1]: redis_server.run("PTTL", key) for key in redis_server.key_names()}
    assert lives.keys() == {"requests", "content-bytes", "concurrent-requests"}
    assert 5_000 < lives["requests"] <= 11_000
    assert 90_000 < lives["content-bytes"] <= 101_000
    assert 25_000 < lives["concurrent-requests"] <= 31_000


def test_the_digest_is_what_the_store_calls_the_script(redis_server: RedisServer) -> None:
    """A script is asked for by the digest that the store computes itself."""
    for script in (ASK, MOVE):
        assert redis_server.run("SCRIPT", "LOAD", script.text.decode()) == script.digest
        assert hashlib.sha1(script.text, usedforsecurity=False).hexdigest() == script.digest.decode()
