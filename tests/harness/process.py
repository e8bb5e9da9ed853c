"""A program under test as a process of its own: a clean environment, its output kept, ended by its own id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

OURS: Final = ("FAL_", "FALGW_", "OTEL_")
TAIL_CHARACTERS: Final = 4000
GATEWAY: Final = ("-m", "gateway")


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without anything of fal's, the gateway's or a proxy's, plus `extra`."""
    kept = {name: value for name, value in os.environ.items() if not unwanted(name)}
    return {**kept, **extra}


def unwanted(name: str) -> bool:
    """Say whether an inherited variable could change what a test shows."""
    return name.startswith(OURS) or name.lower().endswith("_proxy")


class GatewayProcess:
    """`python -m gateway ARGUMENTS`, running in `folder` with its standard output and error in files there.

    `program` stands for `-m gateway` where another Python program starts the gateway.
    """

    def __init__(
        self, arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], program: Sequence[str] = GATEWAY
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._stdout = folder / "stdout.txt"
        self._stderr = folder / "stderr.txt"
        command = [sys.executable, *program, *arguments]
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=clean_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of the program started (its children have others)."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, or None while it runs."""
        return self._process.poll()

    def stdout(self) -> str:
        """Return all that it has printed so far."""
        return self._stdout.read_text(encoding="utf-8", errors="replace")

    def stderr(self) -> str:
        """Return all that it has written to standard error so far."""
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def story(self) -> str:
        """Return what a failure message should say about this process: its exit code and its last output."""
        return f"exit code {self.exit_code}\n{self.stdout()[-TAIL_CHARACTERS:]}\n{self.stderr()[-TAIL_CHARACTERS:]}"

    def alive(self) -> bool:
        """Return True while it runs; AssertionError with its output once it has ended."""
        if self.exit_code is not None:
            raise AssertionError(f"pid {self.pid} has ended too early: {self.story()}")
        return True

    def family(self) -> list[psutil.Process]:
        """Return the process and all its descendants that are still there."""
        try:
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def rss(self) -> int:
        """Return the resident memory of the whole family, in bytes (pages that they share count for each)."""
        return sum(resident(member) for member in self.family())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program that was started, and to nobody else."""
        self._process.send_signal(number)

    def wait(self, timeout_seconds: float) -> int:
        """Return the exit code once it has ended; AssertionError after the time."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"pid {self.pid} did not end in {timeout_seconds:g} s: {self.story()}") from None

    def stop(self, *, timeout_seconds: float = 15.0, expected: int | None = 0) -> None:
        """End it with SIGTERM and check its exit code; harmless when done twice. What refuses to end is killed."""
        if self.exit_code is None:
            self.signal(signal.SIGTERM)
        try:
            code = self.wait(timeout_seconds)
        finally:
            self.kill()
        assert expected is None or code == expected, self.story()

    def kill(self) -> None:
        """Kill what is left of the family, each by its own id."""
        for member in self.family():
            kill(member)
        self._process.wait()


def resident(process: psutil.Process) -> int:
    """Return a process's resident memory in bytes; 0 where it has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def kill(process: psutil.Process) -> None:
    """Kill one process; harmless where it has ended."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
