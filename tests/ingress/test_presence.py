"""When a caller that sends no more is asked whether it is there, and when it is taken for gone."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import pytest

from gateway.ingress.presence import Finding, Presence
from gateway.ingress.stream import CallerStream
from gateway.platform.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW: Final = 1000.0


@pytest.fixture
def presence() -> Iterator[Presence]:
    """Return a new one."""
    poller = Poller()
    ours, theirs = socket.socketpair()
    yield Presence(CallerStream(ours, poller))
    ours.close()
    theirs.close()
    poller.close()


def test_it_is_asked_at_once_and_then_every_five_seconds(presence: Presence) -> None:
    """One that half-closed and left later is found by the next question."""
    asked = [at for at in range(12) if presence.judge(NOW + at, progress=at, may_probe=True) is Finding.PROBE]
    assert asked == [0, 5, 10]


def test_the_first_question_waits_a_moment(presence: Presence) -> None:
    """An answer that comes at once needs none."""
    seconds = presence.ended(NOW)
    assert 0 < seconds < 1
    assert presence.judge(NOW + seconds / 2, progress=0, may_probe=True) is Finding.WAIT
    assert presence.judge(NOW + seconds, progress=0, may_probe=True) is Finding.PROBE


def test_where_it_may_not_be_asked_silence_tells(presence: Presence) -> None:
    """An answer that moves asks by itself; one that is silent for ten seconds has no reader any more."""
    for at in (0, 9, 18):
        assert presence.judge(NOW + at, progress=at, may_probe=False) is Finding.WAIT
    assert presence.judge(NOW + 27, progress=18, may_probe=False) is Finding.WAIT
    assert presence.judge(NOW + 29, progress=18, may_probe=False) is Finding.GONE


def test_the_first_question_comes_soon(presence: Presence) -> None:
    """The end of a caller that has left reaches the origin within 0.2 s: a goal of the benchmark."""
    assert presence.ended(NOW) < 0.2
