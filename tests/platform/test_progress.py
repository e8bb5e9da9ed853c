"""What takes long shows that it goes on: on a terminal, and nowhere else."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from gateway.ledger.ledger import Ledger
from gateway.platform.progress import Progress
from tests.harness.process import GATEWAY, clean_environment
from tests.harness.waiting import until

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_the_line_is_rewritten_and_gone_at_the_end() -> None:
    """What is done, how far it is, and since when; nothing of it stays."""
    terminal = Terminal()
    with Progress("copying", to=terminal, first_seconds=0) as progress:
        until(lambda: "copying: 0 s" in terminal.getvalue(), "the line")
        progress.show(1, 4)
        until(lambda: "copying: 25 % 0 s" in terminal.getvalue(), "a share")
        progress.show(12_345)
        until(lambda: "copying: 12,345 0 s" in terminal.getvalue(), "a count")
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert "\n" not in terminal.getvalue()


def test_what_is_quick_and_what_is_no_terminal_show_nothing() -> None:
    """A pipe gets what it asked for and nothing else."""
    terminal, pipe = Terminal(), io.StringIO()
    with Progress("copying", to=terminal), Progress("copying", to=pipe, first_seconds=0) as progress:
        progress.show(1)
    assert (terminal.getvalue(), pipe.getvalue()) == ("", "")


class ClosedTerminal(Terminal):
    """One whose window was closed."""

    writes = 0

    def write(self, _text: str) -> int:
        """Fail as the system does."""
        self.writes += 1
        raise OSError(errno.EIO, "Input/output error")


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    """The work goes on when its window is closed, and nothing more is written there."""
    terminal = ClosedTerminal()
    with Progress("copying", to=terminal, first_seconds=0):
        until(lambda: terminal.writes, "a line")
    assert terminal.writes <= 2


def test_a_command_on_a_terminal_prints_its_result_alone(tmp_path: Path) -> None:
    """Standard output of a command whose standard error is a terminal has no trace of the progress."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(url)
    ledger.migrate()
    ledger.close()
    reader, writer = os.openpty()
    done = subprocess.run(
        [sys.executable, *GATEWAY, "usage", "--format", "csv"],
        env=clean_environment({"FALGW_DATABASE_URL": url}),
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=60,
        check=True,
    )
    os.close(writer)
    os.close(reader)
    assert re.fullmatch(rb"team,key,requests,[a-z_,]+\n", done.stdout)
