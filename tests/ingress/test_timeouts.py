"""How long a caller may take, with times that are given: no clock is waited for."""

from __future__ import annotations

from time import monotonic
from typing import Final

import pytest

from gateway.ingress.timeouts import CallerTimeouts, Verdict, Watch

HEAD: Final = 15.0
IDLE: Final = 60.0
RATE: Final = 1000.0
WINDOW: Final = 30.0
KEEPALIVE: Final = 620.0
PATIENCE: Final = CallerTimeouts(HEAD, IDLE, RATE, KEEPALIVE)


@pytest.fixture
def now() -> float:
    """Return the time, in monotonic seconds, at which the watch begins, give or take a moment."""
    return monotonic()


@pytest.fixture
def watch() -> Watch:
    """Return the watch of a new connection."""
    return Watch(PATIENCE)


@pytest.mark.parametrize(("seconds", "verdict"), [(HEAD - 1, Verdict.FINE), (HEAD + 1, Verdict.CLOSE)])
def test_a_new_connection_has_a_heads_time_to_say_something(
    watch: Watch, now: float, *, seconds: float, verdict: Verdict
) -> None:
    """A connection without a first request is not kept as long as one that has had one."""
    assert watch.resting(now + seconds, in_head=False) is verdict


@pytest.mark.parametrize(("seconds", "verdict"), [(KEEPALIVE - 1, Verdict.FINE), (KEEPALIVE + 1, Verdict.CLOSE)])
def test_a_used_connection_may_rest(watch: Watch, now: float, *, seconds: float, verdict: Verdict) -> None:
    """Between requests the time of kept connections counts, not that of silence within one."""
    watch.began()
    watch.idle()
    assert watch.resting(now + seconds, in_head=False) is verdict


@pytest.mark.parametrize(("seconds", "verdict"), [(HEAD - 1, Verdict.FINE), (HEAD + 1, Verdict.LATE)])
def test_a_head_has_one_bound_in_all(watch: Watch, now: float, *, seconds: float, verdict: Verdict) -> None:
    """Bytes that come meanwhile do not move it."""
    watch.head_begins(now)
    watch.received(1, now)
    assert watch.resting(now + seconds, in_head=True) is verdict


@pytest.mark.parametrize(("seconds", "verdict"), [(IDLE - 1, Verdict.FINE), (IDLE + 1, Verdict.LATE)])
def test_silence_within_content_is_bounded(now: float, *, seconds: float, verdict: Verdict) -> None:
    """Where no rate is asked for, only silence counts."""
    watch = Watch(CallerTimeouts(HEAD, IDLE, 0, KEEPALIVE))
    watch.began()
    watch.received(10, now)
    assert watch.uploading(now + seconds, held=False) is verdict


@pytest.mark.parametrize(
    ("sent", "verdict"), [(int(RATE * WINDOW) + 2000, Verdict.FINE), (int(RATE * WINDOW) - 2000, Verdict.LATE)]
)
def test_content_has_a_least_rate_over_30_seconds(watch: Watch, now: float, *, sent: int, verdict: Verdict) -> None:
    """A caller who is never silent, and slower than the least rate, does not hold a place for ever."""
    watch.began()
    watch.received(sent, now)
    assert watch.uploading(now + WINDOW - 1, held=False) is Verdict.FINE
    assert watch.uploading(now + WINDOW + 0.5, held=False) is verdict


def test_each_window_is_judged_by_itself(watch: Watch, now: float) -> None:
    """A fast beginning does not buy a slow rest."""
    watch.began()
    watch.received(10_000_000, now)
    assert watch.uploading(now + WINDOW + 1, held=False) is Verdict.FINE
    watch.received(100, now)
    assert watch.uploading(now + 2 * WINDOW + 2, held=False) is Verdict.LATE


def test_time_in_which_the_gateway_does_not_read_is_not_the_callers(watch: Watch, now: float) -> None:
    """A caller who is held because the origin is slow is neither silent nor slow."""
    watch.began()
    for seconds in range(0, 1000, 10):
        assert watch.uploading(now + seconds, held=True) is Verdict.FINE
    assert watch.uploading(now + 990 + WINDOW - 1, held=False) is Verdict.FINE
    assert watch.uploading(now + 990 + WINDOW + 1, held=False) is Verdict.LATE


def test_an_answer_that_is_not_taken_is_cut(watch: Watch, now: float) -> None:
    """The bound runs from the last byte taken, however long the answer takes in all."""
    for step in range(10):
        assert watch.sending(now + step * (IDLE - 1), progress=step) is Verdict.FINE
    last = now + 9 * (IDLE - 1)
    assert watch.sending(last + IDLE - 1, progress=9) is Verdict.FINE
    assert watch.sending(last + IDLE + 1, progress=9) is Verdict.CUT


@pytest.mark.parametrize(
    ("seconds", "size", "verdict"), [(1, 100, Verdict.FINE), (3, 0, Verdict.CLOSE), (1, 101, Verdict.CLOSE)]
)
def test_what_is_left_of_a_refused_request_is_swallowed_within_bounds(
    watch: Watch, now: float, *, seconds: float, size: int, verdict: Verdict
) -> None:
    """Two seconds, and so many bytes."""
    watch.began()
    watch.swallow(100)
    watch.received(size, now)
    assert watch.resting(now + seconds, in_head=False) is verdict


def test_a_connection_that_goes_on_after_swallowing_is_judged_anew(watch: Watch, now: float) -> None:
    """The bound of what was swallowed does not hang over the next request."""
    watch.began()
    watch.swallow(100)
    watch.idle()
    assert watch.resting(now + IDLE - 1, in_head=False) is Verdict.FINE
