"""The storage behind the imitated CDN: objects in parts, on disk, in a folder that goes away with the emulator.

Decision: an object stays the list of its parts. A multipart upload of any size is then completed without copying, and
no upload or download is ever in memory. Nothing touches the disk before the first upload.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.emulator.answers import PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECTS_MOST: Final = 10_000
STORED_MOST_BYTES: Final = 8 * 2**30


@dataclass(frozen=True, slots=True)
class Part:
    """One stored piece of an object; `etag` is the quoted hex of its SHA-256, as an object store would quote it."""

    path: Path
    length: int
    etag: str


@dataclass(slots=True)
class Stored:
    """One object under way or complete. `token` is what makes its upload URL a signed one."""

    object_id: str
    name: str
    content_type: str
    multipart: bool
    token: str
    parts: dict[int, Part] = field(default_factory=dict)
    complete: bool = False

    @property
    def length(self) -> int:
        """The length of the content in bytes."""
        return sum(part.length for part in self.parts.values())


class Intake:
    """One part as it arrives."""

    __slots__ = ("_file", "_files", "_path", "length")

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path
        self._file = path.open("wb")
        self.length = 0

    def write(self, piece: bytes) -> bool:
        """Store a piece; return False, and store nothing, where the storage is full."""
        if not self._files.reserve(len(piece)):
            return False
        self._file.write(piece)
        self.length += len(piece)
        return True

    def commit(self, sha256: str) -> Part:
        """Return the whole part; its digest was taken where every body's is."""
        self._file.close()
        return Part(self._path, self.length, f'"{sha256}"')

    def abandon(self) -> None:
        """Forget a part that did not arrive whole."""
        self._file.close()
        self._files.discard(self._path, self.length)


class Files:
    """All stored objects, bounded in number and bytes."""

    __slots__ = ("_folder", "_objects", "_used_bytes")

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._objects: OrderedDict[str, Stored] = OrderedDict()
        self._used_bytes = 0

    def initiate(self, name: str, content_type: str, *, multipart: bool) -> Stored:
        """Return a new object that waits for its content; the oldest one goes where there are too many."""
        stored = Stored(secrets.token_hex(12), name, content_type, multipart, secrets.token_urlsafe(24))
        self._objects[stored.object_id] = stored
        if len(self._objects) > OBJECTS_MOST:
            self._remove(next(iter(self._objects)))
        return stored

    def find(self, object_id: str) -> Stored | None:
        """Return the object of that id."""
        return self._objects.get(object_id)

    def receive(self, stored: Stored) -> Intake:
        """Open a new part of an object for writing."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fal-emulator-"))
        return Intake(self, self._folder / f"{stored.object_id}.{secrets.token_hex(8)}")

    def keep(self, stored: Stored, number: int, *, part: Part) -> None:
        """Make a whole part that part of the object, in place of an earlier one."""
        earlier = stored.parts.pop(number, None)
        stored.parts[number] = part
        if earlier is not None:
            self.discard(earlier.path, earlier.length)

    def reserve(self, length: int) -> bool:
        """Count bytes that are about to be stored; return False where there is no room for them."""
        if self._used_bytes + length > STORED_MOST_BYTES:
            return False
        self._used_bytes += length
        return True

    def discard(self, path: Path, length: int) -> None:
        """Delete one part's file."""
        path.unlink(missing_ok=True)
        self._used_bytes = max(0, self._used_bytes - length)  # a part may outlive a `clear`

    def _remove(self, object_id: str) -> None:
        for part in self._objects.pop(object_id).parts.values():
            self.discard(part.path, part.length)

    def clear(self) -> None:
        """Delete everything; may be called again and again."""
        self._objects.clear()
        self._used_bytes = 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # a cleaner of temporary folders may have been here first
            self._folder = None


def read_parts(stored: Stored) -> Iterator[bytes]:
    """Yield an object's content, piece by piece, in the order of its parts."""
    for number in sorted(stored.parts):
        with stored.parts[number].path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
