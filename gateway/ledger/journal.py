"""The writer's end of a journal: a worker's own files, to which it appends what happens to its purchases.

The decision: a hold stands in the file before its request is sent, in the kernel's page cache and not on the disk, so
that a killed process forgets nothing that it let go out, and a request waits for no disk. A machine that loses its
power may lose the last seconds. All lines of a turn of the event loop go out with one write, before libcurl acts. Who
must not be sent without its line says whom to tell where that write fails.

A file is a plain stream of bytes: what a short write left over is written first the next time, so a line is either
whole or the last one of a writer that died. What was applied is deleted segment by segment by the ledger process; what
is left is the bound. The door closes for new holds (`is_full`) while there is still room for the ends of what is
inside, and only those may use the rest.

The journal's lock file is locked before it gets its name, and the kernel lets go of it however the writer ends: who
finds it free knows that no line will follow.

What a writer does elsewhere by its lines (budgets: state/holdings.py) it marks with the place where these end, before
they are written. So whoever finds it dead can tell how much of that came to be: as much as the file reaches (`seal`).
"""

from __future__ import annotations

import fcntl
import os
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEGMENT_BYTES: Final = 1 << 20
"""The last segment of each writer stays until it is full, applied or not, and counts: writers times this must be well
below the bound. 256 writers need smaller ones."""

MOST_BYTES: Final = 256 << 20
SPARE_BYTES: Final = 4 << 20
"""Kept for the ends of purchases under way: 2,000 in flight, two lines of 500 bytes each, is half of it."""

LOOK_SECONDS: Final = 1.0
_PRIVATE: Final = 0o600
SEGMENT_PLACES: Final = 1 << 40
"""A place in a journal as one number: that of the segment times this, and bytes from its beginning."""

_BEGIN, _END = 0, 1
MARK_CELLS: Final = 2
"""Where the piece begins and ends that a writer writes just now, or has written last."""


class Journal:
    """Takes lines, and writes them at `flush()`; never waits but for the kernel's memory.

    `dropped_lines` counts what found neither room in the file nor in memory: at most `spare_bytes` wait here.
    """

    def __init__(  # noqa: PLR0913 (its bounds, by name)
        self,
        folder: Path,
        *,
        name: str,
        segment_bytes: int = SEGMENT_BYTES,
        most_bytes: int = MOST_BYTES,
        spare_bytes: int = SPARE_BYTES,
        mark: memoryview | None = None,
    ) -> None:
        """Make a new journal in `folder`, which is there; OSError where that fails.

        `name` is of one writer's life: a second one under it is refused with FileExistsError while files of the first
        are there, or it would take the first one's place in the eyes of who looks at the lock. `mark`: MARK_CELLS
        numbers for `seal`, in memory that outlives the writer.
        """
        self.dropped_lines = 0
        self._folder = str(folder)
        self._name = name
        self._segment_bytes = segment_bytes
        self._most_bytes = most_bytes
        self._spare_bytes = min(spare_bytes, most_bytes // 2)
        self._lines: list[bytes] = []
        self._lines_bytes = 0
        self._refusals: list[Callable[[], None]] = []  # of lines that are not in the file yet
        self._rest = b""  # of lines that were to be written before
        self._is_refused = False
        self._is_cut = False  # what is written first belongs to what the file ends with
        self._mark = mark
        self._spool_bytes = 0
        self._look_at = 0.0
        self._number = 0
        self._written_bytes = 0  # in this segment
        self._lock = _locked_file(self._folder, name)
        self._fd = -1
        try:
            self._open_segment()
        except OSError:
            os.close(self._lock)
            raise

    @property
    def is_full(self) -> bool:
        """Say whether no new hold may be made: the disk refuses, or little room is left below the bound.

        Asking tries again, so that it becomes false by itself once there is room.
        """
        if self._is_refused:
            self.flush()
        else:
            self._look()
        return self._is_refused or self._spool_bytes > self._most_bytes - self._spare_bytes

    @property
    def reach(self) -> int:
        """Where the file ends: as far as this writer's lines have come."""
        return self._number * SEGMENT_PLACES + self._written_bytes

    @property
    def end(self) -> int:
        """Where the file will end once all is written that was appended."""
        waiting = len(self._rest) + self._lines_bytes
        if waiting and self._is_next_due():
            return (self._number + 1) * SEGMENT_PLACES + waiting
        return self.reach + waiting

    def append(self, line: bytes, refused: Callable[[], None] | None = None) -> None:
        """Take one whole line, line feed included; it is in the file after the next `flush` that says so.

        `refused` is called by the next `flush` if that fails, or at once where the line is dropped: nothing may be sent
        then, and it is to be said that the hold was released.
        """
        if self._is_refused and self._lines_bytes + len(self._rest) + len(line) > self._spare_bytes:
            self.dropped_lines += 1
            if refused is not None:
                refused()
            return
        if refused is not None:
            self._refusals.append(refused)
        self._lines.append(line)
        self._lines_bytes += len(line)

    def flush(self) -> bool:
        """Write what was appended; False where not all of it could be: then what is not written waits for the next."""
        if not self._lines and not self._rest:
            return True
        self._look()
        if self._lines:
            self._rest += b"".join(self._lines)
            self._lines = []
            self._lines_bytes = 0
        if self._rest:
            mark = self._mark
            if mark is not None:
                mark[_BEGIN] = self.reach
                mark[_END] = self.end
            written = self._write(self._rest)
            self._rest = self._rest[written:]
            if mark is not None and self._rest:
                mark[_END] = self.reach  # the disk has cut it, and not this writer's death
        self._is_refused = bool(self._rest)
        refusals, self._refusals = self._refusals, []
        if self._is_refused:
            for refused in refusals:
                refused()
            return False
        return True

    def close(self) -> None:
        """Write what is left, as far as it can be, and let go of files and lock; harmless when done twice."""
        if self._fd < 0:
            return
        self.flush()
        os.close(self._fd)
        self._fd = -1
        os.close(self._lock)

    def _write(self, data: bytes) -> int:
        """Return how many bytes the file took; 0 where the disk refuses or the bound is reached."""
        if self._spool_bytes + len(data) > self._most_bytes:
            return 0
        try:
            if self._is_next_due():
                self._open_segment()
            written = os.write(self._fd, data)
        except OSError:
            return 0
        self._spool_bytes += written
        self._written_bytes += written
        self._is_cut = written < len(data)
        return written

    def _is_next_due(self) -> bool:
        return self._written_bytes >= self._segment_bytes and not self._is_cut

    def _open_segment(self) -> None:
        """Go on in a new file; the old one is closed only then, so that a failure leaves things as they are."""
        path = os.path.join(self._folder, f"{self._name}-{self._number + 1:06d}.journal")  # noqa: PTH118 (hot)
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = opened
        self._number += 1
        self._written_bytes = 0

    def _look(self) -> None:
        """Learn once a second how much of this gateway's lines is still there; in between only own bytes are added."""
        now = monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._spool_bytes = segments_bytes(self._folder)


def seal(folder: Path, name: str, mark: memoryview) -> int:
    """Return where the journal of a writer ends that is dead; -1 where it has none, or the disk does not say it.

    A death within the write of a piece can leave a part of it. That goes, since nothing was sent that follows from it,
    and the marks of what it tells lie behind the end.
    """
    try:
        segments = sorted(folder.glob(f"{name}-*.journal"))
        if not segments:
            return -1
        number, size = int(segments[-1].stem.rpartition("-")[2]), segments[-1].stat().st_size
        if mark[_BEGIN] < number * SEGMENT_PLACES + size < mark[_END]:
            size = max(0, mark[_BEGIN] - number * SEGMENT_PLACES)
            os.truncate(segments[-1], size)
    except OSError:
        return -1
    return number * SEGMENT_PLACES + size


def segments_bytes(folder: str) -> int:
    """Return the size of all segments in a folder; those that go meanwhile count for nothing."""
    total = 0
    with os.scandir(folder) as found:
        for file in found:
            if file.name.endswith(".journal"):
                total += _size(file)
    return total


def _size(file: os.DirEntry[str]) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _locked_file(folder: str, name: str) -> int:
    """Return the descriptor of the journal's lock file, locked before others can see it by its name."""
    path = os.path.join(folder, f"{name}.lock")  # noqa: PTH118
    if os.path.exists(path):  # noqa: PTH110
        raise FileExistsError(f"{path} is there: the journal has a writer, or lines of one that are not applied")
    hidden = os.path.join(folder, f".{name}.lock")  # noqa: PTH118
    lock = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(hidden, path)  # noqa: PTH104
    except OSError:
        os.close(lock)
        raise
    return lock
