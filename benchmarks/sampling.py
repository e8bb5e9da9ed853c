"""`python -m benchmarks.sampling serve`: the gateway, telling where its workers' CPU time goes.

Each worker is interrupted every 2 ms of its CPU time and notes the innermost of the gateway's packages on the stack,
and the function that runs. On SIGUSR2 a worker writes its notes to `profile-PID.json` in the folder
BENCH_PROFILE_FOLDER, and begins anew.

Decided here: sampled by a signal and not traced, so that calls of a microsecond cost what they cost without it. C code
counts for the function that called it. Other threads of a worker run unseen; what they take is read from /proc by
whoever reads the notes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.cli import main as cli

if TYPE_CHECKING:
    from types import FrameType

FOLDER_VARIABLE: Final = "BENCH_PROFILE_FOLDER"
INTERVAL_SECONDS: Final = 0.002
METERING: Final = ("gateway.telemetry.log", "gateway.telemetry.metrics", "gateway.telemetry.record")
_PACKAGE: Final = "gateway."
_OUTSIDE: Final = "event loop"


class Sampler:
    """Notes of one process: samples in all, those within metering, by package, by function."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._total = 0
        self._metering = 0
        self._packages: Counter[str] = Counter()
        self._functions: Counter[str] = Counter()

    def begin(self) -> None:
        """Start noting; for a child right after the fork."""
        signal.signal(signal.SIGPROF, self._note)
        signal.signal(signal.SIGUSR2, self._write)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def _note(self, _number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self._total += 1
        self._functions[f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"] += 1
        inside = _gateway_modules(frame)
        self._metering += any(module.startswith(METERING) for module in inside)
        self._packages[".".join(inside[0].split(".")[:2]) if inside else _OUTSIDE] += 1

    def _write(self, _number: int, _frame: FrameType | None) -> None:
        notes = {
            "total": self._total,
            "metering": self._metering,
            "packages": dict(self._packages.most_common()),
            "functions": dict(self._functions.most_common()),
        }
        path = Path(os.environ[FOLDER_VARIABLE]) / f"profile-{os.getpid()}.json"
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(notes), encoding="utf-8")
        unfinished.rename(path)
        self._forget()


def _gateway_modules(frame: FrameType) -> list[str]:
    """Return the gateway's modules on the stack above a worker's main loop, the innermost first."""
    modules: list[str] = []
    current: FrameType | None = frame
    while current is not None:
        name = str(current.f_globals.get("__name__"))
        if name == "asyncio.base_events":
            break
        if name.startswith(_PACKAGE):
            modules.append(name)
        current = current.f_back
    return modules


def main() -> int:
    """Run the gateway's command line, with a sampler in every process that it forks."""
    os.register_at_fork(after_in_child=lambda: Sampler().begin())
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
