"""Log lines on their way out: a bounded queue, one daemon thread that renders and writes, and a drop that is counted.

The decision: the thread that serves requests only appends an object. It takes no lock, formats nothing and touches no
descriptor, because a stalled reader of a pipe freezes whoever writes to it after 61 KiB, and a full disk raises.
What finds the queue full, or the descriptor broken, is dropped and counted.

Lines are joined up to 4,096 bytes a write: so much goes into a pipe in one piece, also beside other workers, and each
write lets go of the interpreter lock, so that the rendering never holds the event loop up for long.

A process without the thread (the supervisor, which must not have threads when it forks) writes at once, but only
where the descriptor takes bytes now. Between that look and the write a worker may fill the pipe: that window is a
few microseconds in the moment when a reader stalls.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Entry = TypeVar("Entry")

QUEUE_LINES: Final = 10_000
WRITE_BYTES: Final = 4_096
"""PIPE_BUF of Linux: a write of at most so much is not interleaved with another's."""

GATHER_SECONDS: Final = 0.02
"""The thread waits so long after the first line of a lull for more to write with it."""

_RETRY_MILLISECONDS: Final = 50
_LINE_END: Final = 0x0A


class Writer(Generic[Entry]):
    """Takes entries, renders and writes them to a descriptor; never raises and never waits in `put`."""

    def __init__(
        self,
        fd: int,
        *,
        render: Callable[[Entry], bytes],
        count_dropped: Callable[[int], None],
        bound: int = QUEUE_LINES,
    ) -> None:
        """Write to `fd` what `render` makes of an entry; at most `bound` entries wait."""
        self.count_dropped = count_dropped
        self._fd = fd
        self._render = render
        self._bound = bound
        self._queue: deque[Entry] = deque()
        self._runner: threading.Thread | None = None
        self._idle = False
        self._in_hand = 0  # lines out of the queue that are neither written nor dropped
        self._is_torn = False  # the last write ended within a line
        self._wake = threading.Event()
        self._stopping = threading.Event()
        # Re-entrant, because a signal handler of the same thread may log while a drop is being counted.
        self._count_lock = threading.RLock()

    def put(self, entry: Entry) -> None:
        """Take an entry; drop and count it where the queue is full."""
        queue = self._queue
        if self._runner is None:
            self._write_now(entry)
        elif len(queue) >= self._bound:
            self._drop(1)
        else:
            queue.append(entry)
            if self._idle:
                self._idle = False
                self._wake.set()

    def start(self) -> None:
        """Start the thread; after the fork, once in each process that has one."""
        self._runner = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._runner.start()

    def stop(self, timeout_seconds: float) -> bool:
        """Write what is queued, for at most so long; False where lines had to be left behind (counted)."""
        thread = self._runner
        if thread is None:
            return True
        self._stopping.set()
        self._wake.set()
        thread.join(timeout_seconds)
        if thread.is_alive():
            self._drop(len(self._queue) + self._in_hand)
            return False
        self._runner = None
        self._stopping.clear()
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._sleep()
            self._stopping.wait(GATHER_SECONDS)
            self._drain()

    def _sleep(self) -> None:
        """Wait for an entry. Idle is set before the last look at the queue, so that no entry slips between."""
        self._wake.clear()
        self._idle = True
        if not self._queue and not self._stopping.is_set():
            self._wake.wait()
        self._idle = False

    def _drain(self) -> None:
        for chunk, lines in self._chunks():
            rest = self._write(self._behind(chunk))
            self._in_hand -= lines
            if rest:
                self._drop(min(lines, rest.count(b"\n")))

    def _chunks(self) -> Iterator[tuple[bytes, int]]:
        """Yield whole lines joined up to WRITE_BYTES, and how many; a longer one alone; until the queue is empty."""
        lines: list[bytes] = []
        size = 0
        while self._queue:
            self._in_hand += 1  # first: a stop in between counts one line twice rather than never
            line = self._render(self._queue.popleft())
            if lines and size + len(line) > WRITE_BYTES:
                yield b"".join(lines), len(lines)
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if lines:
            yield b"".join(lines), len(lines)

    def _write(self, chunk: bytes) -> bytes:
        """Write all of it, however long the reader takes; return what could not be written.

        A disk that fills up takes a part. `_behind` is how the next write ends the torn line.
        """
        rest = memoryview(chunk)
        while rest:
            try:
                written = os.write(self._fd, rest)  # not within the slice: mypyc 2.4 evaluates a bound of one twice
                rest = rest[written:]
            except BlockingIOError:  # somebody else made the shared descriptor non-blocking
                self._takes_bytes(_RETRY_MILLISECONDS)
            except OSError:  # full disk, closed descriptor, reader gone
                break
        done = len(chunk) - len(rest)
        self._is_torn = chunk[done - 1] != _LINE_END if done else self._is_torn
        return rest.tobytes()

    def _behind(self, lines: bytes) -> bytes:
        """Return lines as they may be written now: a torn one before them is ended, so that none is lost with it."""
        return b"\n" + lines if self._is_torn else lines

    def _write_now(self, entry: Entry) -> None:
        """Write a line as far as the descriptor takes it without waiting: a pipe with room has it for one write."""
        rest = self._behind(self._render(entry))
        while rest:
            if not self._takes_bytes(0) or self._write(rest[:WRITE_BYTES]):
                self._drop(1)
                return
            rest = rest[WRITE_BYTES:]

    def _takes_bytes(self, milliseconds: int) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(milliseconds))

    def _drop(self, lines: int) -> None:
        with self._count_lock:
            self.count_dropped(lines)
