"""Two minutes of chaos (tests/chaos/README.md), from a seed that stays the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

SEED: Final = "14"
SECONDS: Final = "120"
RUN_SECONDS: Final = 900.0
"""With the start of everything, and the time that the accounts may take to come right."""


def test_two_minutes_of_chaos() -> None:
    """Nothing is executed twice, lost, or shown to another, and every budget equals the ledger."""
    command = [sys.executable, "-m", "tests.chaos", "--seed", SEED, "--seconds", SECONDS]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
