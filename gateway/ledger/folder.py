"""A gateway's folder below the spool directory, and the lock that says that the gateway lives.

The decision: the supervisor takes the lock before its first fork, and every process of the gateway inherits it. Such a
lock (flock) belongs to the open file and not to a process, so it is free when the last of them is gone and not before:
who gets it may adopt what the gateway left, and needs to ask nobody. A folder gets its name when its lock is held; one
that is being made begins with a dot and is nobody's to adopt.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME: Final = "gateway.lock"
_PRIVATE: Final = 0o700


class FolderTakenError(Exception):
    """Another gateway that lives has this folder."""


class SpoolFolder:
    """A folder whose lock this process, and what it forks, holds. `close()` lets go, and takes away what is empty."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def discard(self) -> None:
        """Delete the folder with all that is in it, and let go; for one whose journals are all applied."""
        for path in self.path.iterdir():
            if path.name != LOCK_NAME:
                path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the folder; it goes away where nothing but its lock is in it. Harmless when done twice."""
        if self._lock < 0:
            return
        if _names(self.path) == [LOCK_NAME]:
            (self.path / LOCK_NAME).unlink()
            with contextlib.suppress(OSError):  # a journal of a process that has not ended was made just now
                self.path.rmdir()
        os.close(self._lock)
        self._lock = -1


def claim_folder(root: Path, gateway_id: str) -> SpoolFolder:
    """Make, or take over, the folder of a gateway below the spool directory, which is made too.

    Raises FolderTakenError where a gateway that lives has it, and OSError where the disk refuses.
    """
    root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    path = root / gateway_id
    if path.is_dir():
        taken = take_folder(path)
        if taken is None:
            raise FolderTakenError(f"{path} belongs to a gateway that is running")
        return taken
    hidden = root / f".{gateway_id}-{os.getpid()}"
    hidden.mkdir(mode=_PRIVATE)
    lock = os.open(hidden / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    hidden.rename(path)
    return SpoolFolder(path, lock)


def take_folder(path: Path) -> SpoolFolder | None:
    """Return the folder of a gateway that is gone; None where it lives, or another one was quicker."""
    try:
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if _locks(lock) and _is_still(path / LOCK_NAME, lock):
        return SpoolFolder(path, lock)
    os.close(lock)
    return None


def folders_below(root: Path) -> Iterator[Path]:
    """Yield the folders of all gateways, living or not."""
    return (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith("."))


def is_free(path: Path) -> bool:
    """Say whether nobody holds the lock of a file; one that is gone is free."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return _locks(lock)
    finally:
        os.close(lock)


def _locks(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, lock: int) -> bool:
    """Say whether the file that was locked is the one of that name: another may have deleted it in between."""
    try:
        return path.stat().st_ino == os.fstat(lock).st_ino
    except FileNotFoundError:
        return False


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
