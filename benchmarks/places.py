"""Where the benchmark finds what it needs and leaves what it makes; all of it under the repository's folder.

What `tools/setup.sh bench` installs stands under `.tools/bench`, which git does not see; the peers' configuration and
pins stand beside this file.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
PEERS: Final = HERE / "peers"
TOOLS: Final = ROOT / ".tools" / "bench"
COMPILED: Final = ROOT / ".tools" / "compiled"
GATEWAY_PYTHON: Final = ROOT / ".venv" / "bin" / "python"
PEER_PYTHON: Final = TOOLS / "python" / "bin" / "python"
NODE_MODULES: Final = TOOLS / "node" / "node_modules"
ORIGIN_SOURCE: Final = HERE / "origin"
ORIGIN_PROGRAM: Final = TOOLS / "origin"
WRK_SCRIPT: Final = HERE / "load" / "post.lua"
LOOPBACK: Final = "127.0.0.1"
_SYSTEM_FOLDERS: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Debian keeps servers out of the search path of those who are not root."""


def find_program(name: str) -> str | None:
    """Return where a system's program is, None where it is not installed."""
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_FOLDERS)
