"""Stands where the harness has `-m gateway`: the same command, run by the image in a container.

Its arguments are podman's own, the image, and the command. The settings of this process's environment are handed on by
name. It becomes podman, which passes on signals, output and exit code as if the gateway were run without a container.
"""

from __future__ import annotations

import os
import sys
from typing import Final

OURS: Final = ("FAL_", "FALGW_", "OTEL_")

settings = [f"--env={name}" for name in os.environ if name.startswith(OURS)]
os.execvp("podman", ["podman", "run", *settings, *sys.argv[1:]])  # noqa: S606 - a test's own command
