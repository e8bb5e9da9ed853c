"""One request of each bucket of a histogram by name, so that a dashboard leads from a slow bucket to its trace or log.

The decision: each process keeps the last exemplar of a bucket in shared memory, one a second at most, so that a
request pays for a compare (0.1 us) and hardly ever for more. A checksum says whether a reader caught a slot half
written; then there is no exemplar this time. The name is the trace id where the request is part of a trace, and else
the gateway's own request id: its log event has both, 32 hexadecimal digits each.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.http.traceparent import read_traceparent
from gateway.telemetry.metrics.families import CLASSES, DURATION_BUCKETS, FIRST_BYTE, REQUEST_DURATION

if TYPE_CHECKING:
    from gateway.telemetry.record import ExchangeRecord

SLOTS_OF_A_CLASS: Final = len(DURATION_BUCKETS) + 1
SLOTS_OF_A_FAMILY: Final = SLOTS_OF_A_CLASS * len(CLASSES)
FIRST_SLOT: Final = MappingProxyType({REQUEST_DURATION.name: 0, FIRST_BYTE.name: SLOTS_OF_A_FAMILY})
"""Families with exemplars, and where their slots begin: for each class a slot for each bucket."""

SLOTS: Final = SLOTS_OF_A_FAMILY * len(FIRST_SLOT)

_CONTENT: Final = struct.Struct("<dd?32s")
_CHECKSUM: Final = struct.Struct("<I")
_SLOT_BYTES: Final = 64


class Exemplar(NamedTuple):
    """One observation: its value in seconds, when it was made (seconds since the epoch), and who it was."""

    timestamp: float
    seconds: float
    is_traced: bool
    id: str


def exemplar_of(record: ExchangeRecord, seconds: float) -> Exemplar:
    """Return an observation of a closed record, under its trace where it has one."""
    trace_id = record.trace.trace_id if record.trace is not None else None
    if trace_id is None and record.traceparent is not None:
        parent = read_traceparent(record.traceparent)
        trace_id = parent.trace_id if parent is not None else None
    return Exemplar(record.timestamp, seconds, trace_id is not None, trace_id or record.request_id)


class Exemplars:
    """The slots of one process: written by it, read by others."""

    def __init__(self) -> None:
        """Make the memory; before the fork."""
        self._memory = mmap.mmap(-1, SLOTS * _SLOT_BYTES)

    def keep(self, slot: int, exemplar: Exemplar) -> None:
        """Put an exemplar in the place of the one before it."""
        content = _CONTENT.pack(*exemplar[:3], exemplar.id.encode("ascii", "replace"))
        at = slot * _SLOT_BYTES
        end = at + _CHECKSUM.size + len(content)
        self._memory[at:end] = _CHECKSUM.pack(zlib.crc32(content)) + content

    def read(self, slot: int) -> Exemplar | None:
        """Return what a slot holds; None where it holds nothing, or is just being written."""
        at = slot * _SLOT_BYTES
        (checksum,) = _CHECKSUM.unpack_from(self._memory, at)
        begin = at + _CHECKSUM.size
        end = begin + _CONTENT.size
        content = self._memory[begin:end]
        if not checksum or checksum != zlib.crc32(content):
            return None
        timestamp, seconds, is_traced, name = _CONTENT.unpack(content)
        return Exemplar(timestamp, seconds, is_traced, name.rstrip(b"\0").decode("ascii"))

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
