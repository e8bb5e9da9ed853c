"""The reader's end of a journal: its whole lines in order, what it leaves open, and what of it may be deleted.

The decision: reading moves nothing. `read` shows what comes next, and `take` moves on once the database has it; who
dies in between reads it again, and a row that climbs does not mind. Where the reader stands, and which holds are open
there, is written to a checkpoint now and then and before anything is deleted, so that a new reader neither starts from
the beginning nor forgets a hold whose line is gone. Which segments are there is asked before one is read to its end: if
a later one was there, the end is the end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from gateway.ledger.entry import HELD, UNKNOWN, Entry, from_line
from gateway.ledger.segments import SEGMENT_PLACES
from gateway.ledger.spool_folder import is_free

if TYPE_CHECKING:
    from pathlib import Path

CHUNK_BYTES: Final = 1 << 20
"""Read at once; a piece of this size without a line feed in it is garbage."""

_NUMBER_DIGITS: Final = 6
_ID_AT: Final = len(b'00000000 ["')


class Position(NamedTuple):
    """A place in a journal: the number of a segment, and bytes from its beginning."""

    segment: int
    offset: int


class Piece(NamedTuple):
    """What comes next in a journal: entries, how many lines were torn or garbage, its size, and the place behind it."""

    entries: list[Entry]
    skipped: int
    size_bytes: int
    behind: Position

    @property
    def place(self) -> int:
        """The place behind it as one number (journal.py)."""
        return self.behind.segment * SEGMENT_PLACES + self.behind.offset


class JournalReader:
    """One journal being read: the one of that `name` in that `folder`."""

    def __init__(self, folder: Path, name: str, *, reads_along: bool = False) -> None:
        """`reads_along`: another ledger process applies it, too, so nothing is written beside it or deleted."""
        self.name = name
        self.folder = folder
        self.reads_along: Final = reads_along
        self._position = Position(0, 0)
        self._open: dict[str, Entry] = {}  # holds without a request id of fal's: as many as are in flight
        self._is_noted = True
        self._resume()

    def is_dead(self) -> bool:
        """Say whether the writer is gone; to be asked before the `read` that finds nothing more."""
        return is_free(self.folder / f"{self.name}.lock")

    @property
    def applied(self) -> int:
        """Up to where the database has it, as one number (journal.py)."""
        return self._position.segment * SEGMENT_PLACES + self._position.offset

    @property
    def end(self) -> int:
        """Where the journal ends now, as the same number."""
        ends = (number * SEGMENT_PLACES + size for number in reversed(self._segments()) if (size := self._size(number)))
        return next(ends, self.applied)  # an empty segment has no line to wait for

    def read(self, most: int, *, until: int | None = None) -> Piece | None:
        """Return at most `most` lines that come next, None where there is no whole line; none behind `until`."""
        there = self._segments()
        last, end = (there[-1] if there else 0, None) if until is None else divmod(until, SEGMENT_PLACES)
        for number in there:
            if number > last:  # all up to `until` is taken, and more
                return None
            offset = self._position.offset if number == self._position.segment else 0
            if offset > self._size(number):  # it was emptied
                offset = 0
            piece = self._read_segment(number, offset, most=most, end=end if number == last else None)
            if piece.behind.offset > offset:
                return piece
            if number >= last:
                return None
            if number != there[-1] and self._size(number) > offset:
                return Piece(
                    [], 1, self._size(number) - offset, Position(number + 1, 0)
                )  # closed in the middle of a line, by a disk that failed
        return None

    def take(self, piece: Piece) -> None:
        """Move behind a piece that the database has, and delete the segments that lie wholly behind."""
        for entry in piece.entries:
            if entry.status == HELD and entry.fal_request_id is None:
                self._open[entry.id] = entry
            else:
                self._open.pop(entry.id, None)
        moved_on = piece.behind.segment != self._position.segment
        self._position = piece.behind
        self._is_noted = False
        if moved_on and not self.reads_along:
            self.note()
            for number in self._numbers():
                if number < self._position.segment:
                    self._path(number).unlink(missing_ok=True)

    def note(self) -> None:
        """Write the checkpoint, where something has changed since the last one.

        A full disk refuses it, and then segments have to go all the same, or there would never be room again. So no
        checkpoint is left rather than an old one: its holds have ended meanwhile. If the reader dies now as well, the
        holds that are open here are found by their age.
        """
        if self._is_noted or self.reads_along:
            return
        content = orjson.dumps([*self._position, [entry.to_line().decode() for entry in self._open.values()]])
        draft = self.folder / f".{self.name}.checkpoint"
        try:
            draft.write_bytes(content)
            draft.rename(self._checkpoint)
        except OSError:
            self._checkpoint.unlink(missing_ok=True)
        else:
            self._is_noted = True

    def orphans(self, now_us: int) -> list[Entry]:
        """Return how the holds end that a dead writer left: their requests may have been sent, so they are charged."""
        return [
            entry._replace(status=UNKNOWN, source="unknown", cost_ns=entry.estimate_ns, changed_at_us=now_us)
            for entry in self._open.values()
        ]

    def torn(self) -> int:
        """Return 1 where the journal ends within a line, else 0."""
        return int(self.unread_bytes() > 0)

    def unread_bytes(self) -> int:
        """Return how many bytes lie before the reader."""
        there = self._segments()
        behind = self._position.offset if self._position.segment in there else 0
        return max(0, sum(map(self._size, there)) - behind)

    def delete(self) -> None:
        """Delete all files of the journal; the lock last, since it is by the lock that a journal is found."""
        for number in self._numbers():
            self._path(number).unlink(missing_ok=True)
        for path in (self._checkpoint, self.folder / f"{self.name}.lock"):
            path.unlink(missing_ok=True)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / f"{self.name}.checkpoint"

    def _resume(self) -> None:
        try:
            segment, offset, lines = orjson.loads(self._checkpoint.read_bytes())
        except (FileNotFoundError, ValueError):  # none yet, or the disk lost it: all lines that are there come again
            return
        self._position = Position(segment, offset)
        entries = (from_line(line.encode()) for line in lines)
        self._open = {entry.id: entry for entry in entries if entry}

    def _read_segment(self, number: int, offset: int, *, most: int, end: int | None) -> Piece:
        size = CHUNK_BYTES if end is None else max(0, min(CHUNK_BYTES, end - offset))
        try:
            with self._path(number).open("rb", buffering=0) as file:
                file.seek(offset)
                chunk = file.read(size) or b""
        except FileNotFoundError:  # it was deleted just now
            chunk = b""
        lines = chunk.split(b"\n", most)[:-1] if chunk.count(b"\n") > most else chunk.split(b"\n")[:-1]
        if not lines and len(chunk) == CHUNK_BYTES:
            return Piece([], 1, len(chunk), Position(number, offset + len(chunk)))
        entries, skipped = _entries_of(lines)
        end = offset + sum(len(line) + 1 for line in lines)
        return Piece(entries, skipped, end - offset, Position(number, end))

    def _segments(self) -> list[int]:
        """Return the numbers of the segments from the reader's on, in order."""
        return [number for number in self._numbers() if number >= self._position.segment]

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 (five times a second)
        except FileNotFoundError:
            return []
        prefix, suffix = f"{self.name}-", ".journal"
        found = (
            name[len(prefix) : -len(suffix)] for name in names if name.startswith(prefix) and name.endswith(suffix)
        )
        return sorted(int(digits) for digits in found if digits.isdecimal() and len(digits) >= _NUMBER_DIGITS)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number:06d}.journal"

    def _size(self, number: int) -> int:
        try:
            return self._path(number).stat().st_size
        except FileNotFoundError:
            return 0


def _entries_of(lines: list[bytes]) -> tuple[list[Entry], int]:
    """Return what lines tell, and how many of them tell nothing.

    The hold of a run whose end stands among them as well is passed over unread: its row would not outlast the merging.
    That is nearly half of all lines. Ends are read first, since a torn one must not cost its hold.
    """
    told = [None if _is_hold(line) else from_line(line) for line in lines]
    ended = {entry.id.encode() for entry in told if entry is not None and entry.status != HELD}
    entries, skipped = [], 0
    for line, known in zip(lines, told, strict=True):
        if known is None and _is_hold(line) and _id_in(line) in ended:
            continue
        entry = known or from_line(line)
        if entry is None:
            skipped += 1
        else:
            entries.append(entry)
    return entries, skipped


def _is_hold(line: bytes) -> bool:
    """Return whether a line says no more than that a run is held; no text can hold these quotation marks."""
    return line.find(b'","held","') >= 0 and line.find(b'","submit",') < 0  # `in` makes and forgets an exception


def _id_in(line: bytes) -> bytes:
    """Return the id in a line that is not checked yet."""
    return line[_ID_AT : line.find(b'"', _ID_AT)]
