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

Where more than half of the bound is taken, each key has a share of the rest: then a key's flood closes its own budgets
and leaves room for the others'. Lines of a key without a budget that find no room are dropped, and counted.

A file that is deleted or moved under the writer is noticed within a second, and written again with all that was
in it; until that can be done the journal is full.

What a writer does elsewhere by its lines (budgets: state/memory/worker_budgets.py) it marks with the place where these
end, before they are written. So whoever finds it dead can tell how much of that came to be: as much as the file reaches
(`seal`).
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.ledger.segments import (
    BEGIN,
    END,
    SEGMENT_PLACES,
    WAITING,
    is_at,
    lock_again,
    lock_path_of,
    locked_file,
    open_segment,
    path_of,
    segments_bytes,
    write_again,
)
from gateway.ledger.unwritten import KeyShares, Unwritten

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
_SHARES: Final = 8
"""Once half of the bound is taken, one key may fill an eighth of it: so a flood leaves room for the others."""


class Journal:
    """Takes lines, and writes them at `flush()`; never waits but for the kernel's memory.

    `lost_purchases` counts those that found room neither in the file nor in memory: at most `spare_bytes` wait here.
    `restored` counts how often files were written again that had been deleted or moved.
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
        writers: int = 1,
    ) -> None:
        """Make a new journal in `folder`, which is there; OSError where that fails.

        `name` is of one writer's life: a second one under it is refused with FileExistsError while files of the first
        are there, or it would take the first one's place in the eyes of who looks at the lock. `mark`: MARK_CELLS
        numbers for `seal`, in memory that outlives the writer. `writers` share the bound, and so each key's share.
        """
        self.restored = 0
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
        self._unwritten = Unwritten()
        self._shares = KeyShares(most_bytes // _SHARES // writers)
        self._is_crowded = False  # more than half of the bound is taken
        self._is_missing = False  # files were deleted or moved, and cannot be written again just now
        self._spool_bytes = 0
        self._look_at = 0.0
        self._number = 0
        self._written_bytes = 0  # in this segment
        self._lock = locked_file(self._folder, name)
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
        return self._is_refused or self._is_missing or self._spool_bytes > self._most_bytes - self._spare_bytes

    def is_full_for(self, key: str) -> bool:
        """Say whether no new hold of a key may be made: the journal is full, or the key has used its share."""
        return self.is_full or (self._is_crowded and self._shares.is_used(key))

    @property
    def lost_purchases(self) -> int:
        """How many purchases were dropped for good, since the start."""
        return self._unwritten.lost

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

    def append(
        self,
        line: bytes,
        refused: Callable[[], None] | None = None,
        optional: bool = False,  # noqa: FBT001, FBT002 (hot: a keyword costs as much as the check)
    ) -> None:
        """Take one whole line, line feed included; it is in the file after the next `flush` that says so.

        `refused` is called by the next `flush` if that fails, or at once where the line is dropped: nothing may be sent
        then, and it is to be said that the hold was released. `optional`: of a key without a budget, whose purchases go
        on where they cannot be written down; it is dropped where the key has used its share.
        """
        if self._is_crowded:
            if optional and self._shares.is_used_by(line):
                self._unwritten.drop(line)
                return
            self._shares.add(line)
        if self._is_refused and self._lines_bytes + len(self._rest) + len(line) > self._spare_bytes:
            self._unwritten.drop(line)
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
            if self._is_refused:
                self._unwritten.wait(self._lines)
            self._rest += b"".join(self._lines)
            self._lines = []
            self._lines_bytes = 0
        if self._rest:
            self._write_rest()
        refusals, self._refusals = self._refusals, []
        if self._is_refused:
            for refused in refusals:
                refused()
            return False
        return True

    def _write_rest(self) -> None:
        mark = self._mark
        if mark is not None:
            mark[BEGIN] = self.reach
            mark[END] = self.end
        written = self._write(self._rest)
        self._rest = self._rest[written:]
        was_refused, self._is_refused = self._is_refused, bool(self._rest)
        if mark is not None and self._rest:
            mark[END] = self.reach  # the disk has cut it, and not this writer's death
        if self._is_refused or was_refused:
            self._note_unwritten(is_less=written > 0 or not was_refused)

    def _note_unwritten(self, *, is_less: bool) -> None:
        """Keep, where it outlives this writer, of how many purchases something is in memory only."""
        if not self._is_refused:
            self._unwritten.clear()
        elif is_less:
            self._unwritten.wait_only(self._rest)
        if self._mark is not None:
            self._mark[WAITING] = len(self._unwritten)

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
        if self._is_missing or self._spool_bytes + len(data) > self._most_bytes:
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
        opened = open_segment(self._folder, self._name, self._number + 1)
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
            self._is_missing = not self._is_there() and not self._restore()
            self._spool_bytes = segments_bytes(self._folder)
            self._is_crowded = self._spool_bytes > self._most_bytes // 2
            if not self._is_crowded:
                self._shares.clear()

    def _is_there(self) -> bool:
        segment = path_of(self._folder, self._name, self._number)
        return is_at(segment, self._fd) and is_at(lock_path_of(self._folder, self._name), self._lock)

    def _restore(self) -> bool:
        """Write files again that were deleted or moved; False where that is not possible now."""
        try:
            if not is_at(lock_path_of(self._folder, self._name), self._lock):
                lock = lock_again(self._folder, self._name)
                os.close(self._lock)
                self._lock = lock
            if not is_at(path_of(self._folder, self._name, self._number), self._fd):
                number, copy, size = write_again(self._fd, self._folder, self._name, self._number + 1)
                os.close(self._fd)
                self._fd, self._number, self._written_bytes = copy, number, size
        except OSError:
            return False
        self.restored += 1
        return True
