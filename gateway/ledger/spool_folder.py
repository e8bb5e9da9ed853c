"""A gateway's folder below the spool directory, and the lock that says that the gateway lives.

The decision: the supervisor takes the lock before its first fork, and every process of the gateway inherits it. Such a
lock (flock) belongs to the open file and not to a process, so it is free when the last of them is gone and not before:
who gets it may adopt what the gateway left, and needs to ask nobody. A folder gets its name when its lock is held; one
that is being made begins with a dot and is nobody's to adopt.

Others use the spool directory, too: a mount brings `lost+found`, an operator a copy. So only folders and files
of the gateway's own names are looked at or deleted, and a folder that is deleted under a running gateway is made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME: Final = "gateway.lock"
_CLAIM_NAME: Final = "serving.lock"
_PRIVATE: Final = 0o700
_GATEWAY_ID: Final = re.compile(r"[0-9a-f]{32}")
_FILE: Final = re.compile(r"\.?([a-z][a-z0-9-]*?)(?:-[0-9]{6,}\.journal|\.checkpoint|\.lock)")
"""Names of files that a gateway makes in its folder; a dot in front while one is being made."""


_UNSAID_NAME: Final = "unsaid.checkpoint"


class FolderTakenError(Exception):
    """Another gateway that lives has this folder."""


class SpoolFolder:
    """A folder whose lock this process, and what it forks, holds. `close()` lets go, and takes away what is empty."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def discard(self) -> None:
        """Delete the folder with what a gateway made in it, and let go; for one whose journals are all applied."""
        for name in _names(self.path):
            if name != LOCK_NAME and _FILE.fullmatch(name):
                with contextlib.suppress(OSError):  # gone already, or a directory of that name
                    (self.path / name).unlink()
        self.close()

    def is_there(self) -> bool:
        """Say whether the folder and its lock are still where they were made."""
        return _is_still(self.path / LOCK_NAME, self._lock)

    def restore(self) -> None:
        """Make the folder and its lock again where they were deleted or moved.

        OSError where the disk refuses or the spool directory's own folder is missing; FolderTakenError where another
        gateway has adopted the folder meanwhile.
        """
        self.path.parent.mkdir(mode=_PRIVATE, exist_ok=True)
        made = take_folder(self.path) if self.path.is_dir() else _make(self.path)
        if made is None:
            raise FolderTakenError(f"{self.path} was taken over by another gateway")
        os.close(self._lock)
        self._lock = made._lock  # noqa: SLF001 (of this class)

    def close(self) -> None:
        """Let go of the folder; it goes away where nothing but its lock is in it. Harmless when done twice."""
        if self._lock < 0:
            return
        if _names(self.path) == [LOCK_NAME] and self.is_there():
            (self.path / LOCK_NAME).unlink()
            with contextlib.suppress(OSError):  # a journal of a process that has not ended was made just now
                self.path.rmdir()
        os.close(self._lock)
        self._lock = -1


class LedgerTakenError(OSError):
    """Another gateway serves over this ledger, and both would count its budgets apart."""


class LedgerClaim:
    """The right of one supervisor to serve over an SQLite ledger; gone with the process, or with `close()`.

    Not inherited: workers that outlive their supervisor do not keep the next gateway from its start.
    """

    def __init__(self, root: Path) -> None:
        """Take it, in the spool directory, which is made; LedgerTakenError where another gateway has it."""
        root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        self._path = root / _CLAIM_NAME
        self._lock = self._take()

    def keep(self) -> None:
        """Take it again where its file was deleted or moved, as with the spool directory; nothing once it is given up.

        LedgerTakenError where another gateway was quicker, OSError where the spool directory is missing.
        """
        if self._lock >= 0 and not _is_still(self._path, self._lock):
            lost, self._lock = self._lock, self._take()
            os.close(lost)

    def _take(self) -> int:
        lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _locks(lock):
            os.close(lock)
            root = self._path.parent
            ledger = root.with_name(root.name.removesuffix(".spool"))
            raise LedgerTakenError(
                f"another gateway runs over the ledger {ledger}, and each would allow all of its budgets: stop it, give"
                " this one another FALGW_DATABASE_URL, or share limits and budgets by FALGW_REDIS_URL"
            )
        return lock

    def close(self) -> None:
        """Give it up; harmless when done twice."""
        if self._lock >= 0:
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
    return _make(path)


def keep_for_next(path: Path) -> None:
    """Let a folder outlast its gateway, so that the next one adopts it: a shared store was not told of the end."""
    with contextlib.suppress(OSError):  # a full disk: then the store finds out by itself, ten minutes later
        (path / _UNSAID_NAME).touch()


def _make(path: Path) -> SpoolFolder:
    """Make a folder that is locked before it gets its name."""
    hidden = path.parent / f".{path.name}-{os.getpid()}"
    hidden.mkdir(mode=_PRIVATE, exist_ok=True)
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
    """Yield the folders of all gateways, living or not; nothing that has another name than those have."""
    return (root / name for name in _names(root) if _GATEWAY_ID.fullmatch(name) and (root / name).is_dir())


def journals_in(folder: Path) -> list[str]:
    """Return the names of the journals in a folder: those that have a lock, and those that lost it."""
    files = (_FILE.fullmatch(name) for name in _names(folder) if name != LOCK_NAME and name[0] != ".")
    return sorted({file[1] for file in files if file and not file[0].endswith(".checkpoint")})


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
    except (FileNotFoundError, NotADirectoryError):
        return False


def _names(folder: Path) -> list[str]:
    """Return the names in a folder; none where it was deleted or cannot be read."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (five times a second)
    except OSError:
        return []
