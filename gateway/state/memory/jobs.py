"""Queue jobs that were submitted through this gateway, remembered in memory that all workers share.

A poll may reach another worker than its submit did, so the table is one mapping made before the first fork. It is
bounded: an id falls into a set of a few places, where a new job takes the place of the oldest. What was forgotten
counts as never seen (policy/job.py). Writers lock their set; readers do not, and know a half-written place by its
checksum. A job that is closed carries the process that did it: if that dies before its journal tells so, the job is
opened again (job_closings.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import zlib
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.policy.job import OPEN, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETS: Final = 16_384
PLACES: Final = 8
"""In all 131,072 jobs, in 64 MiB that the kernel gives page by page as they are used."""

_PLACE_BYTES: Final = 512
_SET_BYTES: Final = PLACES * _PLACE_BYTES
_HEAD: Final = struct.Struct("<I16sQIqqqBHHHHH")
"""Checksum, digest of the id, serial, who closed it; then the job: three numbers, its state, the lengths of texts."""

_TEXT_BYTES: Final = _PLACE_BYTES - _HEAD.size
_CHECKSUM_BYTES: Final = 4


class JobTable:
    """The table. `close()` gives this process's mapping back."""

    def __init__(self, *, sets: int = SETS) -> None:
        self._sets = sets
        self._memory = mmap.mmap(-1, sets * _SET_BYTES)
        self._lock = os.memfd_create("jobs")

    def remember(self, job_id: str, job: Job) -> None:
        """Bind a job's id to its submitter; one whose names are too long for a place is not remembered.

        In a full set the oldest gives way, one whose money is settled before one for which some is held.
        """
        number, digest = self._home(job_id)
        with self._locked(number):
            places = [self._read(number, place) for place in range(PLACES)]
            ages = [(found[2].state == OPEN, found[1]) if found else (False, 0) for found in places]
            same = [place for place, found in enumerate(places) if found and found[0] == digest]
            place = same[0] if same else ages.index(min(ages))
            self._write(number, place, digest, max(serial for _, serial in ages) + 1, job)

    def _write(  # noqa: PLR0913 (a record)
        self, number: int, place: int, digest: bytes, serial: int, job: Job, *, closer: int = 0
    ) -> None:
        texts = [text.encode() for text in (job.team, job.key, job.endpoint, job.purchase, job.unit)]
        if sum(map(len, texts)) > _TEXT_BYTES:
            return
        numbers = (job.admitted_at_us, job.estimate_ns, job.picodollars, job.state)
        body = _HEAD.pack(0, digest, serial, closer, *numbers, *map(len, texts))[_CHECKSUM_BYTES:] + b"".join(texts)
        at = number * _SET_BYTES + place * _PLACE_BYTES
        self._memory[at : at + _CHECKSUM_BYTES + len(body)] = struct.pack("<I", zlib.crc32(body)) + body

    def close_job(
        self, job_id: str, state: int, *, closer: int = 0, note: Callable[[bytes, int], None] | None = None
    ) -> Job | None:
        """Move a job's money up to a state; return the job as it was before, None where it is not known or no lower.

        Exactly one of all who ask gets the job, in whichever worker. `note` is called with the digest of its id and its
        state before that changes; `closer` is the process that does it, for `reopen`.
        """
        number, digest = self._home(job_id)
        with self._locked(number):
            for place in range(PLACES):
                found = self._read(number, place)
                if found and found[0] == digest:
                    if found[2].state >= state:
                        return None
                    if note is not None:
                        note(digest, found[2].state)
                    self._write(number, place, digest, found[1], replace(found[2], state=state), closer=closer)
                    return found[2]
        return None

    def reopen(self, digest: bytes, state: int, *, closer: int) -> None:
        """Take a job back to the state that it had before a process closed it that is dead, if it was that one."""
        number = self._set_of(digest)
        with self._locked(number):
            for place in range(PLACES):
                found = self._read(number, place)
                if found and found[0] == digest and self._closer(number, place) == closer and found[2].state > state:
                    self._write(number, place, digest, found[1], replace(found[2], state=state))

    def find(self, job_id: str) -> Job | None:
        """Return the job of an id, None where it is not remembered."""
        number, digest = self._home(job_id)
        for place in range(PLACES):
            found = self._read(number, place)
            if found and found[0] == digest:
                return found[2]
        return None

    def _home(self, job_id: str) -> tuple[int, bytes]:
        digest = hashlib.blake2b(job_id.encode(), digest_size=16).digest()
        return self._set_of(digest), digest

    def _set_of(self, digest: bytes) -> int:
        return int.from_bytes(digest[:4], "little") % self._sets

    def _closer(self, number: int, place: int) -> int:
        closer: int = _HEAD.unpack_from(self._memory, number * _SET_BYTES + place * _PLACE_BYTES)[3]
        return closer

    def _read(self, number: int, place: int) -> tuple[bytes, int, Job] | None:
        """Return (digest, serial, job) of a place, None where it is empty or just being written."""
        at = number * _SET_BYTES + place * _PLACE_BYTES
        record = self._memory[at : at + _PLACE_BYTES]
        checksum, digest, serial, _, admitted, estimate, price, state, *lengths = _HEAD.unpack_from(record)
        end = _HEAD.size + sum(lengths)
        if not serial or end > _PLACE_BYTES or zlib.crc32(record[_CHECKSUM_BYTES:end]) != checksum:
            return None
        texts, start = [], _HEAD.size
        for length in lengths:
            texts.append(record[start : start + length].decode())
            start += length
        team, key, endpoint, purchase, unit = texts
        return digest, serial, Job(team, key, endpoint, purchase, admitted, estimate, price, unit, state)

    @contextmanager
    def _locked(self, number: int) -> Iterator[None]:
        """Keep other processes out of a set; the kernel lets go of the lock of one that dies."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Give this process's mapping and lock back."""
        self._memory.close()
        os.close(self._lock)


class LocalJobs:
    """`Jobs` of the accounting over the table alone: everything is known at once."""

    def __init__(self, table: JobTable, note: Callable[[bytes, int], None] | None = None) -> None:
        """Take the table, and what is called for each job that is about to be closed."""
        self._remember: Final = table.remember
        self._close: Final = table.close_job
        self._note: Final = note
        self._pid: Final = os.getpid()

    def remember(self, job_id: str, job: Job, answered: Callable[[], None]) -> bool:  # noqa: ARG002 (the seam's shape)
        """Bind a job's id to its submitter; all workers know it at once, so False: there is nothing to wait for."""
        self._remember(job_id, job)
        return False

    def close_job(self, job_id: str, state: int, told: Callable[[Job | None], None]) -> None:
        """Move a job's money up to a state; tell the job as it was before, None where that is not to be done."""
        told(self._close(job_id, state, closer=self._pid, note=self._note))
