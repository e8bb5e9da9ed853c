"""The memory that a policy is published in: whole at any time, whoever reads, and whenever its writer dies."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

import pytest

from gateway.platform.published import Published

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS: Final = 3000
READERS: Final = 2


@pytest.fixture
def published() -> Iterator[Published]:
    """Return the memory, before the first edition."""
    made = Published(largest_bytes=100_000)
    yield made
    made.close()


def content_of(generation: int) -> bytes:
    """Return a content that tells its generation in every byte, of a length that differs from its neighbours'."""
    return bytes([generation % 251]) * (1 + generation * 7919 % 50_000)


def forked(reader: Published) -> int:
    """Start a process that reads until the last round; it ends with 0 where all that it read was whole and newer."""
    pid = os.fork()
    if pid:
        return pid
    code, before = 1, 0
    try:
        while before < ROUNDS:
            generation, content = reader.read()
            assert generation >= before
            assert content == content_of(generation)
            before = generation
        code = 0
    finally:
        os._exit(code)


def test_what_was_published_is_read(published: Published) -> None:
    """Generations count from 1, the newest one is read, also an empty one and the longest."""
    assert published.generation == 0
    for generation, content in enumerate((b"first", b"", b"x" * 100_000, b"last"), 1):
        assert published.publish(content) == published.generation == generation
        assert published.read() == (generation, content)


def test_a_content_that_is_too_long_changes_nothing(published: Published) -> None:
    """The bound is the memory's, and what is in force stays."""
    published.publish(b"good")
    with pytest.raises(ValueError, match="more than 100000"):
        published.publish(b"x" * 100_001)
    assert published.read() == (1, b"good")


def test_readers_find_whole_editions_while_others_are_written(published: Published) -> None:
    """Two processes read without a pause while a third writes: never half an edition, never an older one."""
    published.publish(content_of(1))
    readers = [forked(published) for _ in range(READERS)]
    for generation in range(2, ROUNDS + 1):
        assert published.publish(content_of(generation)) == generation
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in readers] == [0] * READERS


@pytest.mark.parametrize("torn", [False, True])
def test_an_edition_counts_from_the_last_store_on(published: Published, *, torn: bool) -> None:
    """What a writer left that died before it stored the number, whole or torn, hides nothing; the next covers it."""
    published.publish(b"one")
    published.publish(b"two")
    published.publish(b"x" * 90_000)
    published._newest[0] = 2
    if torn:
        start = published._start(3)
        published._whole[start + 5 : start + 50_000] = bytes(49_995)
    assert published.read() == (2, b"two")
    assert published.publish(b"three") == 3
    assert published.read() == (3, b"three")


def test_a_writer_that_is_killed_leaves_the_newest_whole(published: Published) -> None:
    """Wherever the kill falls, the last edition whose number was stored can be read."""
    published.publish(content_of(1))
    for _ in range(20):
        begun = published.generation
        pid = os.fork()
        if pid == 0:
            while True:
                published.publish(content_of(published.generation + 1))
        while published.generation < begun + 5:
            os.sched_yield()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        generation, content = published.read()
        assert content == content_of(generation)
