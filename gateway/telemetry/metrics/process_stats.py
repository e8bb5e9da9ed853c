"""What the kernel says of the gateway's processes: descriptors, memory and CPU time, out of /proc at a scrape.

The decision: read by the ops process, so that a worker that hangs still shows, and nothing is asked of it. CPU time of
processes that are gone stands on the scoreboard (the supervisor is told it as it reaps them), or a killed worker would
make the counter fall, which Prometheus takes for a restart of everything.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.telemetry.metrics import families as metrics

if TYPE_CHECKING:
    from gateway.telemetry.metrics.exposition import Reading
    from gateway.telemetry.metrics.scoreboard import ProcessSlot, Scoreboard

_PROC: Final = Path("/proc")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICK_US: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")
_UTIME: Final = 11  # fields of /proc/PID/stat behind the name in brackets: proc(5)
_MOST_FDS: Final = re.compile(r"^Max open files\s+(\d+)", re.MULTILINE)


class Usage(NamedTuple):
    """Of one process: descriptors open and allowed, resident memory, CPU time in microseconds."""

    open_fds: int
    max_fds: int
    memory_bytes: int
    cpu_us: int


class ProcessTable:
    """Looks at every slot of a scoreboard."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        """Take the scoreboard that says which processes there are."""
        self._slots: dict[str, tuple[ProcessSlot, ...]] = {
            "worker": scoreboard.workers,
            "ledger": (scoreboard.ledger,),
            "ops": (scoreboard.ops,),
            "policy": (scoreboard.policy,),
            "supervisor": (scoreboard.supervisor,),
        }
        self._cpu_us = dict.fromkeys(metrics.PROCESSES, 0)

    def readings(self) -> list[Reading]:
        """Return the families of processes as they stand, summed by what the processes are there for."""
        found = {process: self._sum(process) for process in metrics.PROCESSES}
        families = (metrics.OPEN_FDS, metrics.MAX_FDS, metrics.RESIDENT_MEMORY, metrics.CPU_SECONDS)
        return [
            (family, {(process,): [usage[place]] for process, usage in found.items()})
            for place, family in enumerate(families)
        ]

    def _sum(self, process: str) -> Usage:
        slots = self._slots[process]
        cpu_us = sum(slot.past_cpu_us for slot in slots)  # first: who dies meanwhile is counted by neither, not by both
        open_fds, max_fds, memory_bytes, living_us = map(sum, zip(*(usage_of(slot.pid) for slot in slots), strict=True))
        # One that dies just now is on the scoreboard a moment later: the counter must not fall meanwhile.
        self._cpu_us[process] = max(self._cpu_us[process], cpu_us + living_us)
        return Usage(open_fds, max_fds, memory_bytes, self._cpu_us[process])


def usage_of(pid: int) -> Usage:
    """Return what one process uses; zeros where there is none (pid 0), or where it ends as it is looked at."""
    folder = _PROC / str(pid)
    if not pid:
        return Usage(0, 0, 0, 0)
    try:
        open_fds = len(os.listdir(folder / "fd"))  # noqa: PTH208 (no need of a Path for each of thousands)
        limit = _MOST_FDS.search((folder / "limits").read_text())
        memory_pages = int((folder / "statm").read_text().split()[1])
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):  # gone, or going: what is read of a process that ends is empty
        return Usage(0, 0, 0, 0)
    cpu_us = (int(stat[_UTIME]) + int(stat[_UTIME + 1])) * _TICK_US
    return Usage(open_fds, int(limit[1]) if limit else 0, memory_pages * _PAGE_BYTES, cpu_us)
