"""What a command prints for the person or program that called it."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def say(*lines: str, to: TextIO | None = None) -> None:
    """Print lines on standard output, or `to` another stream, at once."""
    stream = to or sys.stdout
    stream.write("".join(f"{line}\n" for line in lines))
    stream.flush()


def say_if_read(*lines: str) -> None:
    """Print lines, unless no one reads them any more (`serve | head`, a full disk): no reason to stop serving."""
    try:
        say(*lines)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
