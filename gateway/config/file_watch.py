"""When has a file become another one? Asked by stat, several times a second.

The decision: not inotify. A ConfigMap changes by the swap of a symlink two directories above the file that is named,
others by rename, by writing in place, on a file system of another machine; stat on the resolved path sees all of them
for 2 us. A change counts once the file has stood still for a moment, so that a file that is being written is not read
half. One of no bytes is given longer: it is nearly always one that was cut for writing, and an empty policy would
revoke every key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

STILL_SECONDS: Final = 0.1
STILL_EMPTY_SECONDS: Final = 1.0

_Mark = tuple[int, int, int, int, int]


class FileWatch:
    """One file, by a path whose symlinks are followed at each look. The first state of it counts as a change, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark: _Mark | None = None
        self._since: float | None = None
        self._told = False

    def look(self, now: float) -> bool:
        """Return True once for each state that has stood still; being missing is a state. `now` in monotonic seconds.

        A write within the same tick of the file system's clock is seen by its size, or by having come after the wait.
        """
        mark = _mark(self._path)
        if mark != self._mark or self._since is None:
            self._mark, self._since, self._told = mark, now, False
        elif not self._told and now - self._since >= _wait(mark):
            self._told = True
            return True
        return False


def _mark(path: Path) -> _Mark | None:
    """Return what tells one state of a file from another; None where it cannot be found."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _wait(mark: _Mark | None) -> float:
    return STILL_EMPTY_SECONDS if mark is not None and not mark[2] else STILL_SECONDS
