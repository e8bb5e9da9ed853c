"""The way out of the process: nothing that the other end of stderr does is felt by who logs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from gateway.telemetry.log.writer import WRITE_BYTES, Writer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.telemetry.conftest import Fork, Say

Pipe = tuple[int, int]
LINE = b"x" * 99 + b"\n"


def _close(fd: int) -> None:
    """Close a descriptor that a test may have closed already."""
    with contextlib.suppress(OSError):
        os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Return a pipe's two ends, reading and writing."""
    ends = os.pipe()
    yield ends
    _close(ends[0])
    _close(ends[1])


@pytest.fixture
def dropped() -> list[int]:
    """Return the list that each loss is added to."""
    return []


@pytest.fixture
def make_writer(pipe: Pipe, dropped: list[int]) -> Iterator[Callable[..., Writer[bytes]]]:
    """Make writers of ready-made lines.

    At the end the reading side goes first: a thread that is stuck in a write fails then, and ends before the next
    test's pipe is given the same numbers.
    """
    made: list[Writer[bytes]] = []

    def make(fd: int, bound: int = 10_000) -> Writer[bytes]:
        made.append(Writer(fd, render=bytes, count_dropped=dropped.append, bound=bound))
        return made[-1]

    yield make
    _close(pipe[0])
    assert all(writer.stop(5) for writer in made)


MakeWriter = Callable[..., Writer[bytes]]


def _fill(fd: int) -> None:
    """Fill a pipe to its last byte, and leave it blocking."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        while True:
            os.write(fd, b"." * 4096)
    except BlockingIOError:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def _left_free(pipe: Pipe, count: int) -> None:
    """Fill a pipe, and make room for so many bytes: whole pages, as a pipe has them."""
    _fill(pipe[1])
    assert len(os.read(pipe[0], count)) == count


def test_a_long_line_does_not_wait_for_a_pipe_that_is_nearly_full(
    pipe: Pipe, make_writer: MakeWriter, dropped: list[int]
) -> None:
    """Without the thread: what finds no room is dropped and counted, and the torn line spoils no other, later."""
    _left_free(pipe, 2 * 4096)
    writer = make_writer(pipe[1])
    long = b"y" * (5 * WRITE_BYTES) + b"\n"
    writer.put(long)
    writer.put(LINE)
    assert dropped == [1, 1]
    while set(os.read(pipe[0], 4096)) == {ord(".")}:
        pass
    writer.put(LINE)
    writer.put(long)
    assert dropped == [1, 1]
    assert os.read(pipe[0], 1 << 20).lstrip(b"y") == b"\n" + LINE + long


def test_all_lines_come_out_in_order(pipe: Pipe, make_writer: MakeWriter, dropped: list[int]) -> None:
    """What was put before the stop is written by it, whole and in order."""
    writer = make_writer(pipe[1])
    writer.start()
    lines = [b"%d\n" % number for number in range(5_000)]
    for line in lines:
        writer.put(line)
    assert writer.stop(5)
    assert (os.read(pipe[0], 65_536), dropped) == (b"".join(lines), [])


def test_a_single_line_comes_out_by_itself(pipe: Pipe, make_writer: MakeWriter) -> None:
    """A line does not wait for a next one, nor for the end; and the thread wakes again after a lull."""
    writer = make_writer(pipe[1])
    writer.start()
    for line in (b"one\n", b"two\n"):
        writer.put(line)
        assert os.read(pipe[0], 100) == line


def test_a_stalled_reader_is_not_felt(pipe: Pipe, make_writer: MakeWriter, dropped: list[int]) -> None:
    """With a pipe that nobody reads, `put` goes on at once; the queue is bounded, and each loss is counted."""
    writer = make_writer(pipe[1], bound=1_000)
    _fill(pipe[1])
    writer.start()
    began = time.monotonic()
    for _ in range(50_000):
        writer.put(LINE)
    assert time.monotonic() - began < 2
    assert len(writer._queue) == 1_000
    assert 48_000 < sum(dropped) <= 49_000


def test_no_line_is_lost_uncounted(pipe: Pipe, make_writer: MakeWriter, dropped: list[int]) -> None:
    """After a stall the queued lines come out, and written and dropped make up what was put."""
    writer = make_writer(pipe[1], bound=100)
    _fill(pipe[1])
    writer.start()
    for _ in range(1_000):
        writer.put(LINE)
    received: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(pipe[0], received))
    reader.start()
    assert writer.stop(5)
    os.close(pipe[1])
    reader.join()
    assert b"".join(received).count(LINE) + sum(dropped) == 1_000


def _read_all(fd: int, received: list[bytes]) -> None:
    while piece := os.read(fd, 65_536):
        received.append(piece)


def test_stop_is_bounded(pipe: Pipe, make_writer: MakeWriter, dropped: list[int]) -> None:
    """A reader that never comes back does not keep the process: what is left is counted and given up."""
    writer = make_writer(pipe[1])
    _fill(pipe[1])
    writer.start()
    for _ in range(200):
        writer.put(LINE)
    began = time.monotonic()
    assert not writer.stop(0.2)
    assert time.monotonic() - began < 2
    assert 0 < sum(dropped) <= 200


@pytest.mark.parametrize("started", [True, False])
def test_a_full_disk_is_counted(make_writer: MakeWriter, dropped: list[int], *, started: bool) -> None:
    """`No space left on device` reaches nobody; the lines are counted as lost."""
    full = os.open("/dev/full", os.O_WRONLY)
    writer = make_writer(full)
    if started:
        writer.start()
    for _ in range(100):
        writer.put(LINE)
    assert writer.stop(5)
    os.close(full)
    assert sum(dropped) == 100


def test_a_disk_that_fills_up_within_a_line_costs_what_is_not_whole(tmp_path: Path, fork: Fork) -> None:
    """Of lines written together those that are whole count as written; the torn one spoils no other, later."""
    place, lost = tmp_path / "log", list[int]()

    def log(say: Say) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        writer = Writer(os.open(place, os.O_WRONLY | os.O_CREAT), render=bytes, count_dropped=lost.append)
        for most_bytes in (2 * len(LINE) + 50, resource.RLIM_INFINITY):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
            writer._queue.extend([LINE] * 5)
            writer._drain()
        say(b"%d lost" % sum(lost))

    assert fork(log).heard() == b"3 lost"
    assert place.read_bytes() == LINE * 2 + LINE[:50] + b"\n" + LINE * 5


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("started", [True, False])
def test_a_closed_stderr_is_counted(
    pipe: Pipe, make_writer: MakeWriter, dropped: list[int], *, started: bool, end: int
) -> None:
    """Neither a reader that has gone nor a closed descriptor raises."""
    writer = make_writer(pipe[1])
    os.close(pipe[end])
    if started:
        writer.start()
    for _ in range(10):
        writer.put(LINE)
    assert writer.stop(5)
    assert sum(dropped) == 10


def test_a_non_blocking_stderr_loses_nothing(pipe: Pipe, make_writer: MakeWriter, dropped: list[int]) -> None:
    """Where another program made the shared descriptor non-blocking, the thread waits for room."""
    os.set_blocking(pipe[1], False)
    writer = make_writer(pipe[1])
    writer.start()
    lines = [LINE] * 5_000
    received: list[bytes] = []
    for line in lines:
        writer.put(line)
    reader = threading.Thread(target=_read_all, args=(pipe[0], received))
    reader.start()
    assert writer.stop(10)
    os.close(pipe[1])
    reader.join()
    assert (b"".join(received), dropped) == (b"".join(lines), [])


def test_before_the_thread_a_line_is_written_at_once(pipe: Pipe, make_writer: MakeWriter) -> None:
    """A process without the thread writes in the call itself."""
    make_writer(pipe[1]).put(b"now\n")
    os.set_blocking(pipe[0], False)
    assert os.read(pipe[0], 100) == b"now\n"


@pytest.mark.timeout(10)
def test_before_the_thread_a_stalled_reader_costs_the_line(
    pipe: Pipe, make_writer: MakeWriter, dropped: list[int]
) -> None:
    """The supervisor drops and counts rather than wait."""
    _fill(pipe[1])
    make_writer(pipe[1]).put(LINE)
    assert dropped == [1]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("reason", ["a line", "the stop"])
def test_the_thread_looks_once_more_before_it_sleeps(pipe: Pipe, make_writer: MakeWriter, *, reason: str) -> None:
    """What came between its last look and its saying that it is idle wakes it: nothing is slept through."""
    writer = make_writer(pipe[1])
    if reason == "a line":
        writer._queue.append(LINE)
    else:
        writer._stopping.set()
    writer._sleep()
    assert not writer._idle


def test_lines_of_several_processes_stay_whole(pipe: Pipe, make_writer: MakeWriter, fork: Fork) -> None:
    """Workers share one pipe; no line is cut by another's, however they are joined."""

    def log(letter: bytes, say: Say) -> None:
        writer = make_writer(pipe[1])
        writer.start()
        for number in range(3_000):
            writer.put(letter * (number % 150) + b"\n")
        say(b"flushed" if writer.stop(30) else b"stuck")

    children = [fork(lambda say, letter=letter: log(letter, say)) for letter in (b"a", b"b", b"c")]  # type: ignore[misc]
    os.close(pipe[1])
    received: list[bytes] = []
    _read_all(pipe[0], received)
    assert [child.heard() for child in children] == [b"flushed"] * 3
    lines = b"".join(received).split(b"\n")[:-1]
    assert len(lines) == 9_000
    assert all(len(set(line)) <= 1 for line in lines)


def test_writes_are_joined_up_to_what_a_pipe_takes_whole(make_writer: MakeWriter, pipe: Pipe) -> None:
    """Chunks hold whole lines and at most 4,096 bytes; a longer line goes alone; none is empty."""
    writer = make_writer(pipe[1])
    lines = [b"x" * (size - 1) + b"\n" for size in (96, 4_000, 1, 4_096, 9_000, 2, 3)]
    writer._queue.extend(lines)
    first, second, third, fourth, fifth, sixth, seventh = lines
    assert len(first + second) == WRITE_BYTES
    assert list(writer._chunks()) == [
        (first + second, 2),
        (third, 1),
        (fourth, 1),
        (fifth, 1),
        (sixth + seventh, 2),
    ]
