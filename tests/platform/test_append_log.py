"""The append-only list: what is read is whole and in order, whatever happened to a writer."""

from __future__ import annotations

import pytest

from gateway.platform.append_log import HEAD, AppendLog


@pytest.fixture
def used() -> memoryview:
    """Return the published count of bytes."""
    return memoryview(bytearray(8)).cast("q")


@pytest.fixture
def area() -> memoryview:
    """Return room for a few entries."""
    return memoryview(bytearray(64))


def test_entries_come_back_in_order(used: memoryview, area: memoryview) -> None:
    """A reader gets every entry once: it goes on from the offset that the last reading returned."""
    roll = AppendLog(used, area)
    roll.append(b"one")
    roll.append(b"two")
    first, offset = roll.read(0)
    roll.append(b"three")
    assert (first, roll.read(offset)[0]) == ([b"one", b"two"], [b"three"])


def test_an_append_that_was_never_published_is_covered(used: memoryview, area: memoryview) -> None:
    """A writer killed before the count was stored leaves nothing behind that anybody reads."""
    roll = AppendLog(used, area)
    HEAD.pack_into(area, 0, 9, 0)
    area[HEAD.size : HEAD.size + 9] = b"half-made"
    assert roll.read(0) == ([], 0)
    roll.append(b"whole")
    assert roll.read(0)[0] == [b"whole"]


def test_an_entry_that_has_not_arrived_whole_is_left_for_later(used: memoryview, area: memoryview) -> None:
    """Where the count is seen before the bytes, the reader stops in front of them and finds them the next time."""
    roll = AppendLog(used, area)
    roll.append(b"first")
    offset = roll.read(0)[1]
    roll.append(b"second")
    whole = bytes(area)
    for arrived in range(offset, used[0]):
        area[arrived:] = bytes(len(area) - arrived)
        assert roll.read(offset) == ([], offset)
        area[:] = whole
    assert roll.read(offset)[0] == [b"second"]


@pytest.mark.parametrize(("entry", "leave_free_bytes"), [(b"x" * 59, 0), (b"x" * 50, 9), (b"", 0), (b"x" * 70_000, 0)])
def test_what_does_not_fit_is_refused(used: memoryview, area: memoryview, entry: bytes, leave_free_bytes: int) -> None:
    """An entry that is empty, too long, or would take the room that is to stay free changes nothing."""
    roll = AppendLog(used, area)
    assert not roll.append(entry, leave_free_bytes=leave_free_bytes)
    assert roll.read(0) == ([], 0)


def test_an_entry_may_fill_the_area_to_its_last_byte(used: memoryview, area: memoryview) -> None:
    """The bound is the area itself, not one byte less."""
    roll = AppendLog(used, area)
    assert roll.append(b"x" * (64 - HEAD.size))
    assert roll.read(0) == ([b"x" * 58], 64)
