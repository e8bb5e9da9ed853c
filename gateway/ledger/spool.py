"""All journals that this ledger process reads: those of its own gateway, and those that dead gateways left.

The decision: everything that is open in a journal when its writer is dead is finished here, since nobody else will:
its request may have been sent, so it is charged as estimated, and marked. A queue job is not: it lives at fal under its
request id, and whoever fetches its result settles it. A dead gateway's folder is adopted by whoever gets its lock
(spool_folder.py), read to the end, and deleted.

A gateway that was stopped, or whose supervisor was killed, still writes while its last calls end. Where one gateway
alone may serve over a ledger, the next one reads along in that folder until it can adopt it, or its budgets would not
know what those calls come to. The lines come twice then, which the ledger does not mind.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.ledger.errors import LedgerUnavailableError
from gateway.ledger.journal_places import Places
from gateway.ledger.journal_reader import JournalReader, Piece
from gateway.ledger.spool_folder import SpoolFolder, folders_below, journals_in, take_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from gateway.ledger.entry import Entry

Ends = dict[Path, int]
"""Places at which journals end, by their lock files."""

MOST_ENDED: Final = 1_000


class Batch(NamedTuple):
    """What is to be applied next.

    `entries` were written by workers; `finished` are holds of dead writers, ended here as unknown; `skipped` counts
    lines that were torn or garbage. `pieces` and `ended` are the spool's own: how far it moves once this is applied.
    """

    entries: list[Entry]
    finished: list[Entry]
    skipped: int
    pieces: list[tuple[JournalReader, Piece]]
    ended: list[JournalReader]

    @property
    def size_bytes(self) -> int:
        """How many bytes of journals it takes in."""
        return sum(piece.size_bytes for _, piece in self.pieces)

    @property
    def places(self) -> Places:
        """Up to where journals are in the ledger with it, by gateway and name."""
        reached = {(trail.folder.name, trail.name): piece.place for trail, piece in self.pieces}
        return Places(reached, [(trail.folder.name, trail.name) for trail in self.ended])

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it: neither a line to apply nor a journal to delete."""
        return not self.pieces and not self.ended


class Spool:
    """The folders and their journals. `read` shows what is next, `applied` moves on; nothing is lost in between."""

    def __init__(
        self,
        root: Path,
        own: Path,
        *,
        is_awaited: Callable[[str], bool] = lambda _name: False,
        predecessors: Collection[Path] = (),
    ) -> None:
        """Read the folder `own`, which this gateway has claimed, and below `root` what is left by others.

        `predecessors` are folders of gateways before this one, which are read also while those live: never that of a
        gateway behind this one, whose ledger process alone says when a line is in the ledger.

        `is_awaited` tells of a journal in `own` whether its writer, which may be dead, was not settled with yet: until
        then nothing of a dead one's is read, since its end may still be cut (`seal` in journal.py), or deleted.
        """
        self._root = root
        self._own = own
        self._is_awaited = is_awaited
        self._predecessors = set(predecessors)
        self._adopted: dict[Path, SpoolFolder] = {}
        self._ended: deque[str] = deque(maxlen=MOST_ENDED)
        self._trails: dict[Path, JournalReader] = {}  # by their lock files, in the order in which they were found
        self._unreadable: dict[Path, str] = {}  # what the last attempt at a journal came to, by its lock file

    def require_folder(self) -> None:
        """Return where this gateway's folder can be read; LedgerAwayError says why not."""
        try:
            os.listdir(self._own)  # noqa: PTH208 (five times a second)
        except FileNotFoundError:
            raise LedgerUnavailableError(f"the folder of journals {self._own} was deleted or moved") from None
        except OSError as fault:
            raise LedgerUnavailableError(
                f"the folder of journals {self._own} cannot be read: {fault.strerror}"
            ) from None

    def adopt(self) -> list[Path]:
        """Take over the folders of gateways that are gone; return them."""
        taken = []
        there = set(folders_below(self._root))
        for path in sorted(there - {self._own, *self._adopted}):
            folder = take_folder(path)
            if folder is not None:
                self._adopted[path] = folder
                self._leave(path)
                taken.append(path)
        self._predecessors &= there
        self._find_trails()
        self._discard_empty()
        return taken

    def _leave(self, folder: Path) -> None:
        """Read along there no more: it is adopted, and read from where its own ledger process has come to."""
        self._predecessors.discard(folder)
        self._trails = {path: trail for path, trail in self._trails.items() if trail.folder != folder}

    @property
    def unreadable(self) -> str:
        """Which journal could not be read at the last attempt, and why; empty where all could. Each is tried again."""
        return next(iter(self._unreadable.values()), "")

    def read_until(self, places: Mapping[str, int], most: int) -> Batch:
        """Return at most `most` lines that come next in journals of this gateway, none behind a place, by name."""
        batch = Batch([], [], 0, [], [])
        for path, trail in self._in_turn():
            if trail.folder != self._own or trail.name not in places or len(batch.entries) >= most:
                continue
            try:
                piece = trail.read(most - len(batch.entries), until=places[trail.name])
            except OSError as fault:
                self._unreadable[path] = _reason(fault)
                continue
            if piece is not None:
                batch = batch._replace(skipped=batch.skipped + piece.skipped)
                batch.pieces.append((trail, piece))
                batch.entries.extend(piece.entries)
        return batch

    def read(self, most: int) -> Batch:
        """Return at most `most` lines that come next, of all journals in turn, and what dead writers left open.

        A journal that cannot be read keeps no other one waiting (`unreadable`).
        """
        batch = Batch([], [], 0, [], [])
        for path, trail in self._in_turn():
            try:
                is_dead = trail.is_dead()
                if is_dead and trail.folder == self._own and self._is_awaited(trail.name):
                    continue
                piece = trail.read(most - len(batch.entries))
            except OSError as fault:  # a disk that fails, or a file whose mode was changed
                self._unreadable[path] = _reason(fault)
                continue
            self._unreadable.pop(path, None)
            if piece is not None:
                batch = batch._replace(skipped=batch.skipped + piece.skipped)
                batch.pieces.append((trail, piece))
                batch.entries.extend(piece.entries)
            elif is_dead and not trail.reads_along:
                batch = batch._replace(skipped=batch.skipped + trail.torn())
                batch.ended.append(trail)
                batch.finished.extend(trail.orphans(time.time_ns() // 1_000))
            if len(batch.entries) >= most:
                break
        return batch

    def applied(self, batch: Batch) -> None:
        """Move on behind a batch that the database has, and delete what nobody needs any more."""
        for trail, piece in batch.pieces:
            trail.take(piece)
        for trail in batch.ended:
            trail.delete()
        if batch.ended:
            self._trails = {path: trail for path, trail in self._trails.items() if trail not in batch.ended}
            self._discard_empty()

    def note(self) -> None:
        """Write down how far each journal is applied, so that a new process does not read it all again."""
        for trail in self._trails.values():
            trail.note()

    def unapplied_bytes(self) -> int:
        """Return how many bytes of lines are not applied yet."""
        self._find_trails()
        return sum(trail.unread_bytes() for trail in self._trails.values())

    def own_journals(self) -> dict[str, int]:
        """Return up to where each journal of this gateway is applied, by name, as its writer counts places.

        That of a dead writer is here until it is applied to its end.
        """
        self._find_trails()
        return {trail.name: trail.applied for trail in self._trails.values() if trail.folder == self._own}

    def adopted_to_the_end(self) -> list[str]:
        """Return the names of folders that were adopted and applied to their end, the latest ones."""
        return list(self._ended)

    def ends(self) -> Ends:
        """Return where each journal ends now, of all that are read here."""
        self._find_trails()
        return {path: trail.end for path, trail in self._trails.items()}

    def has_applied(self, ends: Ends) -> bool:
        """Say whether all is applied that was there when the ends were taken."""
        left = ((self._trails.get(path), end) for path, end in ends.items())
        return all(trail is None or trail.applied >= end for trail, end in left)

    def has_dead(self) -> bool:
        """Say whether a journal of this gateway is left whose writer is dead: it is not wholly applied yet."""
        self._find_trails()
        own = [path for path, trail in self._trails.items() if trail.folder == self._own]
        return any(self._trails[path].is_dead() for path in own if path not in self._unreadable)

    def close(self) -> None:
        """Write down how far everything is, and let go of the folders that were adopted."""
        self.note()
        for folder in self._adopted.values():
            folder.close()
        self._adopted.clear()

    def _in_turn(self) -> list[tuple[Path, JournalReader]]:
        """Return the journals; the one that comes first now comes last the next time, so that none waits for ever."""
        self._find_trails()
        if self._trails:
            first = next(iter(self._trails))
            self._trails[first] = self._trails.pop(first)
        return list(self._trails.items())

    def _find_trails(self) -> None:
        there = [
            (folder / f"{name}.lock", folder, name)
            for folder in (self._own, *self._adopted, *self._predecessors)
            for name in journals_in(folder)
        ]
        found = {path for path, _, _ in there}
        self._trails = {path: trail for path, trail in self._trails.items() if not trail.reads_along or path in found}
        known = found.union(self._trails)
        self._unreadable = {path: reason for path, reason in self._unreadable.items() if path in known}
        for path, folder, name in there:
            if path not in self._trails:
                try:
                    self._trails[path] = JournalReader(folder, name, reads_along=folder in self._predecessors)
                except OSError as fault:  # its checkpoint: without it, lines that are applied would not be known
                    self._unreadable[path] = _reason(fault)

    def _discard_empty(self) -> None:
        """Delete adopted folders that have no journal left."""
        in_use = {path.parent for path in (*self._trails, *self._unreadable)}
        for path in [path for path in self._adopted if path not in in_use]:
            self._adopted.pop(path).discard()
            self._ended.append(path.name)


def _reason(fault: OSError) -> str:
    return f"a journal cannot be read: {fault.filename}: {fault.strerror}"
