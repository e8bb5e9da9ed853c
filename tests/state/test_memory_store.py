"""Quotas and slots in memory: exact for any order of times, across processes, through their deaths."""

from __future__ import annotations

import itertools
import os
import signal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.quota import Decision, Limit, LimitSet
from gateway.state.interface import Acquire
from gateway.state.memory.store import LocalStore, Quotas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEVER: Final = 1e9
LEASES: Final = itertools.count()


class Clock:
    """Seconds, as a test sets them; far from zero, as a machine's are that has been up for weeks."""

    def __init__(self) -> None:
        self.now = 3_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Bench:
    """A store with a clock of its own."""

    def __init__(self, *, slots: int = 1, places: int = 64, address_places: int = 64) -> None:
        self.clock = Clock()
        self.quotas = Quotas(slots=slots, places=places, address_places=address_places)
        self.stores = [LocalStore(self.quotas, slot=slot, clock=self.clock) for slot in range(slots)]

    def ask(self, *limits: Limit, slot: int = 0, address: str = "") -> tuple[Decision, Acquire]:
        """Ask for one call."""
        ask = Acquire(f"lease-{next(LEASES)}", LimitSet("", limits), address)
        verdict = self.stores[slot].ask(ask, never)
        assert verdict is not None
        return verdict, ask

    def granted(self, *limits: Limit, calls: int, slot: int = 0, address: str = "") -> int:
        """Return how many of so many calls are granted just now."""
        return sum(self.ask(*limits, slot=slot, address=address)[0].granted for _ in range(calls))


def never(_verdict: Decision | None) -> None:
    """Stand where a store that answers later would call back."""
    raise AssertionError("told later")


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a store for one worker."""
    made = Bench()
    yield made
    made.quotas.close()


@pytest.fixture
def shared() -> Iterator[Bench]:
    """Return stores of three workers over one memory."""
    made = Bench(slots=3)
    yield made
    made.quotas.close()


def rate(quota: int = 60, window: float = 60.0, **more: Any) -> Limit:  # noqa: ANN401 - whatever a limit may have
    """Return a limit on requests."""
    return Limit(more.pop("name", "submits"), "key/web", "requests", quota=quota, window=window, **more)


def slots(quota: int, **more: Any) -> Limit:  # noqa: ANN401 - whatever a limit may have
    """Return a limit on what is under way at once."""
    return Limit("parallel", "key/web", "concurrent-requests", quota=quota, window=0.0, **more)


def upload(quota: int = 1000, window: float = 10.0, **more: Any) -> Limit:  # noqa: ANN401 - whatever a limit may have
    """Return a limit on bytes: a hundred a second."""
    return Limit("upload", "key/web", "content-bytes", quota=quota, window=window, **more)


# -- rates ------------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.integers(1, 20),
    st.lists(st.one_of(st.just(0), st.integers(0, 100), st.integers(0, 5_000_000)), min_size=1, max_size=80),
)
def test_granted_is_what_a_bucket_holds(quota: int, window: int, burst: int, gaps: list[int]) -> None:
    """For any times, `gaps` milliseconds apart, exactly those calls pass for which an ideal bucket has a unit."""
    bench = Bench()
    limit = rate(quota, float(window), burst=burst)
    start, passed, level = bench.clock.now, Fraction(0), Fraction(burst)
    for gap in gaps:
        passed += Fraction(gap, 1000)
        bench.clock.now = start + float(passed)
        level = min(Fraction(burst), level + Fraction(gap, 1000) * Fraction(quota, window))
        verdict, _ = bench.ask(limit)
        if abs(level - 1) > Fraction(1, 100_000):  # else either is right: a float has no exact third
            assert verdict.granted == (level >= 1)
        level -= verdict.granted
        assert abs(verdict.remaining[0] - level) <= 1
        assert verdict.granted or verdict.retry_after == pytest.approx(float((1 - level) * window / quota), abs=1e-3)
    bench.quotas.close()


@given(st.lists(st.integers(0, 3000), min_size=2, max_size=80))
def test_granted_stays_within_rate_and_burst_in_any_stretch(gaps: list[int]) -> None:
    """Between any two grants no more passed than quota / window x t + burst."""
    bench, limit, grants = Bench(), rate(10, 10.0, burst=3), []
    for gap in gaps:
        bench.clock.now += gap / 1000
        if bench.ask(limit)[0].granted:
            grants.append(bench.clock.now)
    for first, last in itertools.combinations(range(len(grants)), 2):
        assert last - first + 1 <= grants[last] - grants[first] + 3 + 1e-5
    bench.quotas.close()


def test_what_is_told_as_next_is_when_it_comes(bench: Bench) -> None:
    """`waits` of a grant is when one unit more is there, not a moment earlier."""
    limit = rate(burst=2)
    assert bench.ask(limit)[0].waits == [pytest.approx(1.0)]
    bench.clock.now += 0.25
    verdict, _ = bench.ask(limit)
    assert verdict.remaining == [0]
    assert verdict.waits == [pytest.approx(0.75)]
    refused, _ = bench.ask(limit)
    assert not refused.granted
    assert refused.retry_after == pytest.approx(0.75)
    bench.clock.now += 0.74
    assert not bench.ask(limit)[0].granted
    bench.clock.now += 0.02
    assert bench.ask(limit)[0].granted


def test_a_refused_call_takes_nothing_of_any(bench: Bench) -> None:
    """The last of four limits says no: the three before it are as they were."""
    last = rate(1, NEVER, name="last")
    others = (rate(2, NEVER), slots(2), upload())
    assert bench.ask(*others, last)[0].granted
    for _ in range(10):
        verdict, _ = bench.ask(*others, last)
        assert (verdict.granted, verdict.refused_by) == (False, 3)
    assert bench.ask(*others)[0].remaining == [0, 0, 1000]


def test_all_refusals_are_waited_for(bench: Bench) -> None:
    """Where several limits refuse, the first is named and the longest wait is told."""
    limits = (rate(1, 5.0, name="short"), rate(1, 50.0, name="long"))
    bench.ask(*limits)
    verdict, _ = bench.ask(*limits)
    assert verdict.refused_by == 0
    assert verdict.retry_after == pytest.approx(50.0)


def test_calls_that_may_wait_have_turns(bench: Bench) -> None:
    """Each next one waits one interval more; who would wait longer than may be takes no turn."""
    limit = rate(1, 1.0, burst=1, max_wait=2.0)
    delays = [verdict.delay for verdict, _ in (bench.ask(limit) for _ in range(3))]
    assert delays == [0.0, pytest.approx(1.0), pytest.approx(2.0)]
    refused, _ = bench.ask(limit)
    assert not refused.granted
    assert refused.retry_after == pytest.approx(3.0)
    bench.clock.now += 1.0
    assert bench.ask(limit)[0].delay == pytest.approx(2.0)


def test_what_is_undone_was_never_taken(bench: Bench) -> None:
    """Slots and units come back, bytes that have passed do not; a second release frees nothing more."""
    limits = (rate(3, NEVER), slots(1), upload(window=NEVER))
    store = bench.stores[0]
    _, ask = bench.ask(*limits)
    store.charge(ask, 400)
    store.undo(ask)
    store.release(ask)
    verdict, _ = bench.ask(*limits)
    assert verdict.remaining == [2, 0, 600]
    assert not bench.ask(*limits)[0].granted


def test_giving_back_fills_no_bucket_beyond_its_burst(bench: Bench) -> None:
    """A unit that comes back to a full bucket is not more than full."""
    limit = rate(60, 60.0, burst=2)
    _, ask = bench.ask(limit)
    bench.clock.now += 1000.0
    bench.stores[0].undo(ask)
    assert bench.granted(limit, calls=10) == 2


def test_a_smaller_bucket_is_not_held_to_a_larger_ones_debt(bench: Bench) -> None:
    """After a policy's change a key waits no longer than its new bucket takes to fill."""
    assert bench.granted(rate(100, 100.0, burst=100), calls=100) == 100
    small = rate(100, 100.0, burst=2)
    assert bench.ask(small)[0].retry_after <= 2.0
    bench.clock.now += 100.0
    assert bench.granted(small, calls=10) == 2


# -- slots ------------------------------------------------------------------------------------------------------------


def test_slots_are_the_sum_over_workers(shared: Bench) -> None:
    """Whoever holds them, there are so many; one that a worker frees any other may take."""
    limit = slots(3)
    asks = [shared.ask(limit, slot=slot)[1] for slot in range(3)]
    refused, _ = shared.ask(limit, slot=0)
    assert (refused.granted, refused.retry_after, refused.remaining, refused.waits) == (False, 1.0, [0], [-1.0])
    shared.stores[1].release(asks[1])
    shared.stores[1].release(asks[1])
    assert shared.granted(limit, calls=5, slot=2) == 1


def test_slots_of_a_dead_worker_come_back(shared: Bench) -> None:
    """The supervisor frees what a worker held, and nothing of others; rates outlive it."""
    limits = (slots(3), rate(5, NEVER))
    for slot in (0, 1, 1):
        shared.ask(*limits, slot=slot)
    shared.quotas.vacate(1, 0)
    assert shared.granted(*limits, calls=9, slot=2) == 2
    shared.quotas.vacate(0, 0)
    assert not shared.ask(*limits)[0].granted  # the rate is spent: three and two
    assert shared.granted(slots(3), calls=9) == 1


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_bytes_are_charged_to_the_next_call(bench: Bench) -> None:
    """A call is granted while anything is left; what it sends beyond has to come back first."""
    limit = upload()
    verdict, ask = bench.ask(limit)
    assert (verdict.remaining, verdict.waits) == ([1000], [0.0])
    bench.stores[0].charge(ask, 999)
    verdict, ask = bench.ask(limit)
    assert (verdict.granted, verdict.remaining) == (True, [1])
    bench.stores[0].charge(ask, 501)
    refused, _ = bench.ask(limit)
    assert not refused.granted
    assert refused.retry_after == pytest.approx(5.01)
    bench.clock.now += 5.02
    assert bench.ask(limit)[0].granted


@given(st.lists(st.integers(0, 10**12), max_size=20))
def test_debt_is_at_most_one_window(charges: list[int]) -> None:
    """However much passed, after one window and what one byte takes a call is granted again."""
    bench, limit = Bench(), upload()
    _, ask = bench.ask(limit)
    for size in charges:
        bench.stores[0].charge(ask, size)
    bench.clock.now += limit.window + 2 * limit.interval
    assert bench.ask(limit)[0].granted
    bench.quotas.close()


# -- shadow and addresses ---------------------------------------------------------------------------------------------


def test_the_shadow_says_no_and_refuses_nobody(bench: Bench) -> None:
    """What would have refused is named; it takes nothing then, and the limits that hold go on."""
    limits = (rate(1, NEVER, shadow=True), slots(1, shadow=True), rate(3, NEVER, name="real"))
    verdicts = [bench.ask(*limits)[0] for _ in range(4)]
    assert [verdict.granted for verdict in verdicts] == [True, True, True, False]
    assert [verdict.shadowed for verdict in verdicts] == [[], [0, 1], [0, 1], [0, 1]]
    assert [verdict.remaining[2] for verdict in verdicts] == [2, 1, 0, 0]


def test_addresses_have_limits_of_their_own(bench: Bench) -> None:
    """Each address has the whole quota; a crowd of them pushes out no configured limit."""
    limit, configured = rate(2, NEVER), rate(5, NEVER, name="configured")
    assert bench.granted(configured, calls=3) == 3
    assert [bench.granted(limit, calls=5, address=f"192.0.2.{number}") for number in range(4)] == [2] * 4
    for number in range(1000):
        bench.ask(limit, address=f"10.0.{number // 250}.{number % 250}")
    assert bench.granted(configured, calls=9) == 2


# -- processes --------------------------------------------------------------------------------------------------------


def in_child(call: Callable[[], None]) -> int:
    """Run in a forked process; return its id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call()
            code = 0
        finally:
            os._exit(code)
    return pid


def test_processes_that_ask_at_once_are_granted_the_sum() -> None:
    """Three processes ask as fast as they can at one moment: exactly the burst passes, none of it twice."""
    bench, limit = Bench(slots=3), rate(1000, NEVER)
    reader, writer = os.pipe()

    def ask_on(slot: int) -> Callable[[], None]:
        return lambda: ignore(os.write(writer, b"%d\n" % bench.granted(limit, calls=700, slot=slot)))

    children = [in_child(ask_on(slot)) for slot in range(3)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    os.close(writer)
    with os.fdopen(reader) as counts:
        assert sum(map(int, counts)) == 1000
    bench.quotas.close()


def ignore(_written: int) -> None:
    """Drop a result."""


def test_a_process_that_dies_in_a_judgement_leaves_no_lock() -> None:
    """The lock dies with its holder: others go on as if it had never asked."""
    bench, limit = Bench(slots=2), rate(2, NEVER)
    reader, writer = os.pipe()

    def stay() -> float:
        os.write(writer, b"x")
        signal.pause()
        return 0.0

    child = in_child(lambda: ignore(len(str(LocalStore(bench.quotas, slot=1, clock=stay).ask(ask_for(limit), never)))))
    assert os.read(reader, 1) == b"x"  # it holds the lock now
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert bench.granted(limit, calls=5) == 2
    os.close(reader)
    os.close(writer)
    bench.quotas.close()


def ask_for(limit: Limit) -> Acquire:
    """Return what a request under this limit asks for."""
    return Acquire("lease", LimitSet("", [limit]))
