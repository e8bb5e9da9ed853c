"""The lines of calls that wait: first come first served, asked again in time, and never more often than needed."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final

import pytest

from gateway.limits.wait_queue import WaitQueue
from gateway.policy.quota import Limit, LimitSet

if TYPE_CHECKING:
    from collections.abc import Callable

LINE: Final = "key/web/parallel/concurrent-requests"


class Clock:
    """Calls to come, made when the time is moved on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call back (as `loop.call_later`)."""
        heapq.heappush(self.due, (self.now + seconds, next(self._numbers), call))

    def move_on(self, seconds: float) -> None:
        """Make the calls that are due by then."""
        end = self.now + seconds
        while self.due and self.due[0][0] <= end:
            self.now, _, call = heapq.heappop(self.due)
            call()
        self.now = end


class Slots:
    """A store of so many slots, and the order in which they were given out."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.given: list[str] = []
        self.asked = 0


class Scripted:
    """A call in line that asks a store of slots; `is_asking` where that answers later."""

    def __init__(self, name: str, slots: Slots, *, line: str = LINE, is_asking: bool = False) -> None:
        self.name = name
        self.line = line
        self.is_over = False
        self.is_asking = is_asking
        self._slots = slots

    def ask_again(self) -> None:
        """Take a slot if there is one."""
        self._slots.asked += 1
        if self._slots.free:
            self._slots.free -= 1
            self._slots.given.append(self.name)
            self.is_over = True


@pytest.fixture
def clock() -> Clock:
    """Return a clock at zero."""
    return Clock()


@pytest.fixture
def room(clock: Clock) -> WaitQueue:
    """Return an empty room."""
    return WaitQueue(clock.later)


def stand(room: WaitQueue, slots: Slots, *names: str) -> list[Scripted]:
    """Let these stand in line."""
    waiters = [Scripted(name, slots) for name in names]
    for waiter in waiters:
        room.add(waiter)
    return waiters


def test_slots_go_to_who_came_first(room: WaitQueue, clock: Clock) -> None:
    """As many as come free at once are given out at once, in the order of coming."""
    slots = Slots(0)
    stand(room, slots, "a", "b", "c", "d")
    slots.free = 2
    room.slot_freed()
    clock.move_on(0.0)
    assert slots.given == ["a", "b"]
    slots.free = 5
    clock.move_on(0.05)  # freed in another worker: nobody tells
    assert slots.given == ["a", "b", "c", "d"]


def test_only_the_first_is_asked_for(room: WaitQueue, clock: Clock) -> None:
    """Those behind cannot be granted before it, so the store is not asked about them."""
    slots = Slots(0)
    stand(room, slots, *"abcdefgh")
    clock.move_on(1.0)
    assert 40 <= slots.asked <= 55


def test_an_empty_room_rests(room: WaitQueue, clock: Clock) -> None:
    """Where nobody waits, nothing is due, whatever comes free."""
    slots = Slots(1)
    room.slot_freed()
    assert clock.due == []
    stand(room, slots, "a")
    clock.move_on(0.1)
    assert (slots.given, clock.due) == (["a"], [])


def test_slots_that_come_free_leave_nothing_behind(room: WaitQueue, clock: Clock) -> None:
    """However many slots come free while others wait, the store is asked as often as one line needs."""
    slots = Slots(0)
    stand(room, slots, "a", "b")
    for _ in range(100):
        room.slot_freed()
        clock.move_on(0.001)
    assert len(clock.due) <= 2
    slots.asked = 0
    clock.move_on(1.0)
    assert slots.asked <= 55


def test_who_has_left_is_passed_over(room: WaitQueue, clock: Clock) -> None:
    """A call that is over, in front or in the midst, holds nobody up and gets nothing."""
    slots = Slots(0)
    first, _, third, _ = stand(room, slots, "a", "b", "c", "d")
    first.is_over = third.is_over = True
    slots.free = 2
    room.slot_freed()
    clock.move_on(0.0)
    assert slots.given == ["b", "d"]


def test_who_is_being_asked_for_is_not_asked_twice(room: WaitQueue, clock: Clock) -> None:
    """While a store has still to answer, its line stands still."""
    slots = Slots(2)
    asking = Scripted("a", slots, is_asking=True)
    room.add(asking)
    stand(room, slots, "b")
    clock.move_on(0.1)
    assert slots.asked == 0
    asking.is_asking = False
    clock.move_on(0.1)
    assert slots.given == ["a", "b"]


def test_lines_do_not_hold_each_other_up(room: WaitQueue, clock: Clock) -> None:
    """Each limit has a line of its own."""
    full, empty = Slots(0), Slots(1)
    room.add(Scripted("a", full, line="one"))
    room.add(Scripted("b", empty, line="other"))
    clock.move_on(0.03)
    assert (full.given, empty.given) == ([], ["b"])


def test_who_moves_to_another_line_holds_up_none(room: WaitQueue, clock: Clock) -> None:
    """A call that now waits for the slots of another limit is passed over where it stood."""
    slots = Slots(1)
    moved = Scripted("a", Slots(0), line="other")
    moved.line = LINE
    room.add(moved)
    stand(room, slots, "b")
    moved.line = "other"
    room.add(moved)
    clock.move_on(0.03)
    assert slots.given == ["b"]


@pytest.mark.parametrize(("max_wait", "stands"), [(0.0, False), (1.0, True)])
def test_who_comes_now_stands_behind_who_waits(room: WaitQueue, *, max_wait: float, stands: bool) -> None:
    """A call finds the line at any of its limits, unless it would not wait."""
    mine = Limit("parallel", "key/web", "concurrent-requests", quota=1, window=0.0, max_wait=max_wait)
    other = Limit("parallel", "key/app", "concurrent-requests", quota=1, window=0.0, max_wait=1.0)
    assert room.line_for(LimitSet("", [mine])) is None
    room.add(Scripted("a", Slots(0), line=mine.store_name))
    assert room.line_for(LimitSet("", [mine])) == (mine.store_name if stands else None)
    assert room.line_for(LimitSet("", [other])) is None
