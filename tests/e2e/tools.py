"""podman, buildah and skopeo as commands, with a store of images and containers of their own.

The decision it carries: the store lies below `.tools/e2e`, so that what a machine runs in containers is neither seen
nor touched; and every limit is said, since the tools' own defaults ask for more than a process may be allowed to have.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
PLACE: Final = ROOT / ".tools" / "e2e"
BASE: Final = "localhost/fal-gateway-base"
IMAGE: Final = "localhost/fal-gateway"
CERTIFICATES: Final = "/etc/ssl/certs"
LIMITS: Final = ("--runtime=runc", "--ulimit=nofile=20000:20000", "--ulimit=nproc=32768:32768")
"""What every container here is started with."""

RUN_FLAGS: Final = (*LIMITS, "--network=host")
"""The same, on the host's network: what is tested listens on loopback only."""

_STORE: Final = """\
[storage]
driver = "overlay"
graphroot = "{place}/containers"
runroot = "{place}/run"
"""
SHORT_SECONDS: Final = 60.0


def store_environment() -> dict[str, str]:
    """Return the variables by which podman, buildah and skopeo find the store; its configuration is written anew."""
    PLACE.mkdir(parents=True, exist_ok=True)
    configuration = PLACE / "storage.conf"
    configuration.write_text(_STORE.format(place=PLACE), encoding="utf-8")
    return {"CONTAINERS_STORAGE_CONF": str(configuration)}


def run(*command: str, timeout_seconds: float = SHORT_SECONDS) -> str:
    """Run a command on the store, from the top of the tree; return its output, AssertionError where it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **store_environment()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    )
    return done.stdout


def exists(image: str) -> bool:
    """Say whether the store has an image of this name."""
    return image in run("podman", "images", "--format", "{{.Repository}}").split()
