"""Somebody else's program on loopback, for a test: started, its output kept in a file, ended by its own id."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Final

from tests.harness.process import TAIL_CHARACTERS, clean_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

END_SECONDS: Final = 10.0


class Program:
    """A command, running in `folder`; what it prints is in `log` there."""

    def __init__(self, command: Sequence[str], folder: Path, *, log: str = "log.txt") -> None:
        self._name = command[0]
        self._log = folder / log
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=clean_environment({}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise AssertionError with the end of its output where it has ended by itself."""
        code = self._process.poll()
        if code is not None:
            said = self._log.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:]
            raise AssertionError(f"{self._name} has ended with {code}: {said}")

    def end(self, *, timeout_seconds: float = END_SECONDS) -> None:
        """End it with SIGTERM, what refuses with SIGKILL; harmless when done twice."""
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it; harmless when done twice."""
        self._process.kill()
        self._process.wait()
