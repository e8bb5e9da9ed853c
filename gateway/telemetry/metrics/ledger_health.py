"""How the ledger process is: what it last said of itself, judged by who can still speak when it hangs.

The decision: a process cannot say that it has stopped. So it only writes down that it has finished a turn, whether the
database took everything, and how much of the journals it had read; whoever shows that (the ops process) takes a process
that has not spoken for `HANG_SECONDS` as one that does not work, and counts the journals' bytes itself.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.telemetry.metrics import families as metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.telemetry.metrics.exposition import Reading

HANG_SECONDS: Final = 10.0
"""A turn takes milliseconds, or 5 s where SQLite's file is locked; each batch of a long one is a sign of life."""

_MILLISECONDS: Final = 1_000
_SPOKE_AT, _IS_UP, _READ_BYTES, _HAS_BEEN_UP = range(4)


class LedgerHealth:
    """Four cells of shared memory; they outlive the process that writes them, and the next one goes on with them."""

    def __init__(self, cells: memoryview, *, clock: Callable[[], float] = monotonic) -> None:
        """Take the cells; `clock` gives seconds that all processes share."""
        self._cells = cells
        self._clock = clock

    # -- by the ledger process ----------------------------------------------------------------------------------------

    def live(self) -> None:
        """Say that it works: another batch is in the database."""
        self._cells[_SPOKE_AT] = int(self._clock() * _MILLISECONDS)

    def show(self, *, is_up: bool, read_bytes: int) -> None:
        """Say how a turn went, and how many of the bytes in this gateway's folder are read."""
        self._cells[_IS_UP] = int(is_up)
        self._cells[_HAS_BEEN_UP] |= int(is_up)
        self._cells[_READ_BYTES] = read_bytes
        self.live()

    @property
    def has_been_up(self) -> bool:
        """Whether the database has taken everything before, in this gateway's life."""
        return bool(self._cells[_HAS_BEEN_UP])

    # -- by others ----------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether the database takes what is written down, as of a moment ago."""
        return bool(self._cells[_IS_UP]) and not self.is_silent

    @property
    def is_silent(self) -> bool:
        """Whether the process has not finished anything for too long: it hangs, or is not there."""
        return self._clock() - self._cells[_SPOKE_AT] / _MILLISECONDS > HANG_SECONDS

    def readings(self, folder_bytes: int) -> list[Reading]:
        """Return the families of its health; `folder_bytes` are in the folder of journals now."""
        spool_bytes = max(0, folder_bytes - int(self._cells[_READ_BYTES]))
        return [(metrics.LEDGER_UP, {(): [int(self.is_up)]}), (metrics.SPOOL_BYTES, {(): [spool_bytes]})]
