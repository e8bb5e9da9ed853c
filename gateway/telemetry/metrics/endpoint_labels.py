"""Which endpoints have a metric label of their own: `none`, the configured ones, the first 50 seen; else `other`.

The decision: the 50 are counted over all workers, in shared memory, so that one worker's metrics cannot name an
endpoint that another's calls `other`. Looking one up is a dict of this process. Only a name that is new here takes
the lock, at most a handful of times in a process's life; it is a record lock on an anonymous file, because that lock
is held by a process and dies with it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from gateway.platform.append_log import HEAD, AppendLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NONE: Final = "none"
OTHER: Final = "other"
SEEN_LIMIT: Final = 50
NAME_BYTES: Final = 96
"""Longest name that is given a label by being seen; a configured one may be longer."""

_COUNT_BYTES: Final = 8


class EndpointLabels:
    """Endpoint name to label value, bounded over all processes that were forked from this one's maker."""

    def __init__(self, *, limit: int = SEEN_LIMIT) -> None:
        """Make the shared table for `limit` names."""
        self._limit = limit
        self._memory = mmap.mmap(-1, _COUNT_BYTES + limit * (HEAD.size + NAME_BYTES))
        self._whole = memoryview(self._memory)
        self._roll = AppendLog(self._whole[:_COUNT_BYTES].cast("q"), self._whole[_COUNT_BYTES:])
        self._lock = os.memfd_create("endpoint-labels")
        self._seen: list[str] = []
        self._offset = 0
        self._known: dict[str, str] = {}
        self.configure(())

    def configure(self, names: Iterable[str]) -> None:
        """Give every name in `names` (of the policy: priced, or allowed without a wildcard) its own label."""
        self._known = {name: name for name in (NONE, *names, *self._seen)}

    def label(self, endpoint: str) -> str:
        """Return the label value of an endpoint; a name that is seen for the first time may take a place."""
        return self._known.get(endpoint) or self._place(endpoint)

    def seen(self) -> list[str]:
        """Return the names that have a label by being seen, in whichever process."""
        self._learn()
        return list(self._seen)

    def _place(self, endpoint: str) -> str:
        # Names out of the target grammar are ASCII; anything else is no endpoint of fal's.
        if len(self._seen) >= self._limit or not 0 < len(endpoint) <= NAME_BYTES or not endpoint.isascii():
            return OTHER
        with self._locked():
            self._learn()
            if endpoint not in self._known and len(self._seen) < self._limit:
                self._roll.append(endpoint.encode())
                self._learn()
        return self._known.get(endpoint, OTHER)

    def _learn(self) -> None:
        entries, self._offset = self._roll.read(self._offset)
        self._seen.extend(entry.decode() for entry in entries)
        self._known.update((name, name) for name in self._seen)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give this process's mapping and its lock file back."""
        self._roll.release()
        self._whole.release()
        self._memory.close()
        os.close(self._lock)
