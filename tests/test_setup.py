"""`tools/setup.sh` in a copy of its own, with a pip that is a script: what a newcomer reads while it installs."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.harness.waiting import until

SETUP: Final = Path(__file__).parent.parent / "tools" / "setup.sh"
WAIT_SECONDS: Final = 30.0
PIP: Final = """#!/bin/sh
case "$*" in "-c import pip") exit 0;; esac
echo "Collecting tornado==6.6.1 (from fal-gateway)"
{rest}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the script, and an environment that is there already."""
    (tmp_path / "tools").mkdir()
    shutil.copy(SETUP, tmp_path / "tools")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    return tmp_path


def set_up(folder: Path, rest: str, *, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start the step `package` with a pip that says that it collects one package, and then does the rest."""
    python = folder / ".venv" / "bin" / "python"
    python.write_text(PIP.format(rest=rest), encoding="utf-8")
    python.chmod(0o755)
    return subprocess.Popen([folder / "tools" / "setup.sh", "package"], stderr=stderr, text=True)


def test_what_is_done_is_said_before_and_after(folder: Path) -> None:
    """Where no terminal is: one line at the start, one at the end, and nothing of pip's own."""
    _, said = set_up(folder, "true").communicate(timeout=WAIT_SECONDS)
    before, after = said.splitlines()
    assert before.startswith("set-up: installing fal-gateway into .venv")
    assert before.endswith(" …")
    assert ": done in " in after


def test_a_failure_shows_what_pip_said(folder: Path) -> None:
    """The output that is held back otherwise is shown, and the step fails."""
    process = set_up(folder, "echo 'ERROR: no such package' >&2; exit 3")
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 3
    assert "ERROR: no such package" in said
    assert ": failed after " in said.splitlines()[-1]


def test_a_terminal_shows_how_far_it_is(folder: Path) -> None:
    """On a terminal the line tells the package that is fetched just now, while it is."""
    go_on = folder / "go-on"
    os.mkfifo(go_on)
    terminal, other_end = pty.openpty()
    process = set_up(folder, f"read -r _ <{go_on}", stderr=other_end)
    os.close(other_end)
    os.set_blocking(terminal, False)
    shown = bytearray()

    def shows(text: bytes) -> bool:
        with contextlib.suppress(BlockingIOError):  # nothing new
            shown.extend(os.read(terminal, 1024))
        return text in shown

    until(lambda: shows(b"package 1: tornado"), "the package that is fetched")
    go_on.write_text("go on\n", encoding="utf-8")
    until(lambda: shows(b"done in"), "the end")
    assert process.wait(WAIT_SECONDS) == 0
    os.close(terminal)
