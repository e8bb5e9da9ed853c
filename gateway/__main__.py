"""The console script `fal-gateway`, and `python -m gateway`: what has to be right before anything else is imported.

The command line takes a third of a second to import; until then a signal would meet Python's defaults.
"""

from __future__ import annotations

import os
import sys

from gateway.platform.signals import guard_start


def main() -> int:
    """Run one command; return its exit code."""
    _open_standard_streams()
    if sys.argv[1:2] == ["serve"]:
        guard_start()
    from gateway.cli.main import main as run  # noqa: PLC0415 (takes its time)

    try:
        return run()
    except KeyboardInterrupt:
        return 130  # as a shell says that SIGINT ended a command


def _open_standard_streams() -> None:
    """Open /dev/null in place of a standard stream that is closed.

    Otherwise Python has no `sys.stdout` to write to, and the next socket that is opened gets the stream's number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (a number; it stays)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
