"""What a run was made on: cores, processor, kernel, and the version of everything measured. No names, no paths."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.places import NODE_MODULES, PEER_PYTHON, find_program
from gateway.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSION: Final = re.compile(r"\d+(?:\.\d+)+")
_UNKNOWN: Final = "not installed"
_GIGABYTE: Final = 1 << 30


def describe_machine() -> dict[str, str]:
    """Return what identifies the machine as far as figures depend on it, and the versions of all systems."""
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIGABYTE:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "gateway": f"{VERSION} (Tornado {_installed('tornado')}, pycurl {_installed('pycurl')})",
        "aiohttp": _installed("aiohttp", folders=_peer_folders()),
        "litellm": _installed("litellm", folders=_peer_folders()),
        "express": f"{_node_package('express')}, @fal-ai/server-proxy {_node_package('@fal-ai/server-proxy')},"
        f" Node {_said_version(['node', '--version'])}",
        "nginx": _said_version(["nginx", "-v"]),
        "haproxy": _said_version(["haproxy", "-v"]),
        "wrk": _said_version(["wrk", "-v"]),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _installed(name: str, *, folders: Sequence[str] | None = None) -> str:
    found = importlib.metadata.distributions(name=name, path=list(sys.path if folders is None else folders))
    return next((distribution.version for distribution in found), _UNKNOWN)


def _peer_folders() -> list[str]:
    return [str(path) for path in PEER_PYTHON.parent.parent.glob("lib/python3*/site-packages")]


def _node_package(name: str) -> str:
    path = NODE_MODULES / name / "package.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["version"]) if path.exists() else _UNKNOWN


def _said_version(command: Sequence[str]) -> str:
    program = find_program(command[0])
    if program is None:
        return _UNKNOWN
    said = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)  # wrk -v exits with 1
    found = _VERSION.search(said.stdout + said.stderr)
    return found[0] if found else "unknown"
