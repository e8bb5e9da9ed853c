"""The files of one journal: where they end when their writer is dead, how big they are, and the lock beside them.

The decision: what is seldom asked of the files is here, apart from the way of a line (journal.py). A file that was
deleted or moved is still open in its writer, so its lines are not lost: they are written to a new one.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SEGMENT_PLACES: Final = 1 << 40
"""A place in a journal as one number: that of the segment times this, and bytes from its beginning."""

BEGIN, END, WAITING = 0, 1, 2
"""Cells of a writer's mark: where the piece begins and ends that it writes just now, or has written last; and of how
many purchases something waits in its memory that the disk did not take."""

MARK_CELLS: Final = 3
PRIVATE: Final = 0o600
_NEW: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def path_of(folder: str, name: str, number: int) -> str:
    """Return the path of a segment."""
    return os.path.join(folder, f"{name}-{number:06d}.journal")  # noqa: PTH118 (hot)


def open_segment(folder: str, name: str, number: int) -> int:
    """Return the descriptor of a new, empty segment; OSError where there is one, or the disk refuses."""
    return os.open(path_of(folder, name, number), _NEW, PRIVATE)


def is_at(path: str, fd: int) -> bool:
    """Say whether an open file is the one of that name."""
    try:
        named = os.stat(path)  # noqa: PTH116
    except OSError:
        return False
    opened = os.fstat(fd)
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)


def write_again(fd: int, folder: str, name: str, number: int) -> tuple[int, int, int]:
    """Copy a segment that has lost its name to the first number from `number` on that is free; OSError on a fault.

    Returns the new file's number, descriptor and size. It gets its name when it is whole.
    """
    content = os.pread(fd, os.fstat(fd).st_size, 0)
    while os.path.exists(path := path_of(folder, name, number)):  # noqa: PTH110
        number += 1
    draft = path_of(folder, f".{name}", number)
    copy = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    try:
        written = 0
        while written < len(content):
            written += os.write(copy, content[written:])  # a disk that is full refuses the rest
        os.rename(draft, path)  # noqa: PTH104
    except OSError:
        os.close(copy)
        raise
    return number, copy, len(content)


def seal(folder: Path, name: str, mark: memoryview) -> int:
    """Return where the whole lines of a dead writer's journal end; -1 where it has none, or the disk does not say it.

    A death within the write of a piece can leave a part of it. That goes, since nothing was sent that follows from it,
    and the marks of what it tells are behind the end.
    """
    try:
        segments = sorted(folder.glob(f"{name}-*.journal"))
        if not segments:
            return -1
        number, size = int(segments[-1].stem.rpartition("-")[2]), segments[-1].stat().st_size
        if mark[BEGIN] < number * SEGMENT_PLACES + size < mark[END]:
            size = max(0, mark[BEGIN] - number * SEGMENT_PLACES)
            os.truncate(segments[-1], size)
        size = segments[-1].read_bytes().rfind(b"\n") + 1  # a full disk may have cut the last line
    except OSError:
        return -1
    return number * SEGMENT_PLACES + size


def segments_bytes(folder: str) -> int:
    """Return the size of all segments in a folder; those that go meanwhile count for nothing, as a folder that did."""
    total = 0
    try:
        with os.scandir(folder) as found:
            for file in found:
                if file.name.endswith(".journal"):
                    total += _size(file)
    except (FileNotFoundError, NotADirectoryError):
        return total
    return total


def _size(file: os.DirEntry[str]) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def lock_path_of(folder: str, name: str) -> str:
    """Return the path of a journal's lock file."""
    return os.path.join(folder, f"{name}.lock")  # noqa: PTH118


def locked_file(folder: str, name: str) -> int:
    """Return the descriptor of the journal's lock file, locked before others can see it by its name."""
    path = lock_path_of(folder, name)
    if os.path.exists(path):  # noqa: PTH110
        raise FileExistsError(f"{path} is there: the journal has a writer, or lines of one that are not applied")
    hidden = os.path.join(folder, f".{name}.lock")  # noqa: PTH118
    lock = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(hidden, path)  # noqa: PTH104
    except OSError:
        os.close(lock)
        raise
    return lock


def lock_again(folder: str, name: str) -> int:
    """Return the descriptor of the lock file of a journal that lost it, or whose file another one has replaced."""
    lock = os.open(lock_path_of(folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
