"""Processes of the benchmark: started on given cores, measured with their whole family, ended by their ids.

Decided here: what a system costs is what the kernel charged to it and all its descendants (user and system time out
of /proc), because a process that answers through helpers, threads or an ops process pays for those too.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MEGABYTE_KILOBYTES: Final = 1000 / 1.024
STOP_SECONDS: Final = 8.0


class Pinned:
    """A program in a session of its own, on `cores` only; its output goes to `output`."""

    def __init__(
        self, command: Sequence[str], *, cores: Iterable[int], output: Path, env: Mapping[str, str] | None = None
    ) -> None:
        """Start it; OSError where there is no such program. `env` is laid over this process's own."""
        with output.open("wb") as stream:
            self._process = subprocess.Popen(
                ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],  # noqa: S607 (util-linux, wherever it is)
                env={**os.environ, **(env or {})},
                cwd=output.parent,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id: the first of its family."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is gone, by itself or stopped."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End it politely, then what is left of its session by force; harmless when done twice."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):  # nobody is left: as it should be
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def family(pid: int) -> tuple[int, ...]:
    """Return a process and all that descend from it."""
    members, found = [pid], 0
    while found < len(members):
        members += _children(members[found])
        found += 1
    return tuple(members)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for task in _entries(Path(f"/proc/{pid}/task")):
        with suppress(OSError):  # a thread that has just ended
            children += map(int, (task / "children").read_text().split())
    return children


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # the process has just ended
        return []


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return user and system time of these processes so far; those that are gone count nothing."""
    return sum(cpu_of(Path(f"/proc/{pid}/stat")) for pid in pids)


def cpu_of(stat: Path) -> float:
    """Return the CPU-seconds in one `stat` file, a process's or a thread's; 0 where it is gone."""
    try:
        behind_name = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(behind_name[11]) + int(behind_name[12])) / _TICKS


def resident_megabytes(pids: Iterable[int]) -> float:
    """Return the resident memory of these processes together, in units of 10^6 bytes."""
    return _status_megabytes(pids, "VmRSS:")


def peak_megabytes(pids: Iterable[int]) -> float:
    """Return the sum of each process's highest resident memory since `forget_peak`, in units of 10^6 bytes."""
    return _status_megabytes(pids, "VmHWM:")


def own_megabytes(pids: Iterable[int]) -> float:
    """Return the memory of these processes together, what they share counted once (Pss), in units of 10^6 bytes."""
    return sum(_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in pids) / _MEGABYTE_KILOBYTES


def forget_peak(pids: Iterable[int]) -> None:
    """Let `peak_megabytes` begin anew (proc(5), clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def descriptors(pids: Iterable[int]) -> int:
    """Return how many descriptors these processes hold open together."""
    return sum(len(_entries(Path(f"/proc/{pid}/fd"))) for pid in pids)


def _status_megabytes(pids: Iterable[int], name: str) -> float:
    return sum(_kilobytes(Path(f"/proc/{pid}/status"), name) for pid in pids) / _MEGABYTE_KILOBYTES


def _kilobytes(file: Path, name: str) -> int:
    with suppress(OSError):  # the process has just ended
        for line in file.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return 0
