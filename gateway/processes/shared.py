"""What all processes of one gateway share: made by the first one before it forks, and given up by none."""

from __future__ import annotations

from pathlib import Path
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from gateway.ledger.address import parse_database_url
from gateway.ledger.journal import Journal
from gateway.ledger.segments import WAITING, seal, segments_bytes
from gateway.ledger.spool_folder import LedgerClaim, SpoolFolder, claim_folder, folders_below
from gateway.platform.published import Published
from gateway.state.job_channel import JobChannel
from gateway.state.memory.job_closings import JobClosings
from gateway.state.memory.jobs import JobTable
from gateway.state.memory.store import Quotas
from gateway.telemetry.metrics.scoreboard import Scoreboard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.settings import Settings
    from gateway.telemetry.log.log import Log
    from gateway.telemetry.metrics.scoreboard import ProcessSlot

_SPOOL_SUFFIX: Final = ".spool"


class Shared:
    """The memory, the log, and the folder of this gateway's journals."""

    def __init__(self, settings: Settings, log: Log, environ: Mapping[str, str]) -> None:
        """Make all of it; OSError where the folder of journals cannot be made, or another gateway has the ledger.

        `environ` holds variables that a policy may name.
        """
        self.replica: Final = uuid4().hex
        self.environ: Final = environ
        self.born_at: Final = monotonic()
        self.began_us: Final = time_ns() // 1_000
        self.settings: Final = settings
        self.log: Final = log
        self.scoreboard: Final = Scoreboard(workers=settings.workers)
        self.published: Final = Published()
        self.quotes: Final = Published()  # prices that fal told
        self.statement: Final = Published()  # what each key has spent
        self.jobs: Final = JobTable()
        self.job_closings: Final = JobClosings(slots=settings.workers)
        self.job_channel: Final = JobChannel(workers=settings.workers)
        self.quotas: Final = Quotas(slots=settings.workers)
        self.spool_root: Final = spool_root(settings.database_url.get_secret_value())
        file = parse_database_url(settings.database_url.get_secret_value()).file
        self.is_alone: Final = settings.redis_url is None and file is not None
        """Whether no other gateway may serve over its ledger."""
        self._claim = LedgerClaim(self.spool_root) if self.is_alone else None
        self.predecessors: Final = frozenset(folders_below(self.spool_root) if self.is_alone else ())
        """Folders of journals of gateways before this one, which may still drain, where they had the same ledger."""
        self.spool: Final[SpoolFolder] = claim_folder(self.spool_root, self.replica)

    def keep_ledger(self) -> None:
        """Keep other gateways from this ledger also where the lock's file was deleted; OSError where that fails."""
        if self._claim is not None:
            self._claim.keep()

    def give_up_ledger(self) -> None:
        """Let other gateways serve over this ledger, as far as this process is concerned."""
        if self._claim is not None:
            self._claim.close()

    def journal_name(self, slot: ProcessSlot) -> str:
        """Return the name of the journal of the worker that sits there."""
        return f"worker-{self.scoreboard.workers.index(slot)}-{slot.pid}"

    def open_journal(self, slot: ProcessSlot) -> Journal:
        """Make the journal of the worker that sits there; OSError where that fails."""
        name, writers = self.journal_name(slot), self.settings.workers
        return Journal(self.spool.path, name=name, mark=slot.mark, writers=writers)

    def is_seated(self, journal: str) -> bool:
        """Say whether a journal's worker lives, or is dead and was not settled with yet (`settle_with_dead`)."""
        return any(slot.pid and self.journal_name(slot) == journal for slot in self.scoreboard.workers)

    def spool_bytes(self) -> int:
        """Return how many bytes are in this gateway's folder of journals, read or not."""
        return segments_bytes(str(self.spool.path))

    def settle_with_dead(self, slot: ProcessSlot) -> int:
        """Count what a worker left that is gone, as far as its journal tells it; for the supervisor.

        Returns how many purchases it had in memory only, because the disk took no lines. Its slot is vacated only then:
        that is what the ledger's process waits for, with the journal and with what the worker had to say to the store.
        """
        end = seal(self.spool.path, self.journal_name(slot), slot.mark)
        number = self.scoreboard.workers.index(slot)
        self.quotas.vacate(number, end)
        for digest, state in self.job_closings.conclude(number, end):
            self.jobs.reopen(digest, state, closer=slot.pid)
        return int(slot.mark[WAITING])


def spool_root(database_url: str) -> Path:
    """Return where journals wait for a database: beside SQLite's file, else in the working directory."""
    file = parse_database_url(database_url).file
    return Path(f"{file or 'fal-gateway'}{_SPOOL_SUFFIX}").absolute()
