"""How near this container is to its memory limit, so that requests are refused before the kernel kills everything.

Read from the control group once a second (cgroup v2, `memory.current` less `inactive_file`, the working set that
Kubernetes evicts by; v1 under its own names). Without a limit there is no pressure.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 1.0
LARGE_SHARE: Final = 0.85
"""Above it, large uploads are refused."""

ALL_SHARE: Final = 0.95
"""Above it, everything is."""

_UNLIMITED_BYTES: Final = 1 << 60  # v1 says "no limit" with a number near 2^63


@dataclass(frozen=True, slots=True)
class _Files:
    current: str
    limit: str
    inactive: str


_V2: Final = _Files("memory.current", "memory.max", "inactive_file")
_V1: Final = _Files("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")


def own_group(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Path | None:
    """Return the folder of this process's memory control group, None where there is none to be read.

    A container may be told its path as the host sees it, and find its own group mounted at the top: so the top comes
    last, of both versions. Outside of a container that is the group of everything, which has no limit.
    """
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    tops = (root, root / "memory")
    paths = [line.split(":", 2)[2] for line in lines if line.startswith("0::") or ":memory:" in line]
    candidates = [*(top / path.lstrip("/") for path in paths for top in tops), *tops]
    return next((found for found in candidates if _files_in(found) is not None), None)


def _files_in(folder: Path) -> _Files | None:
    return next((files for files in (_V2, _V1) if (folder / files.limit).is_file()), None)


class MemoryPressure:
    """The share of the limit in use, as of the last look."""

    def __init__(self, folder: Path | None) -> None:
        """Take the control group's folder; None: no limit."""
        self._folder = folder
        self._files = _files_in(folder) if folder is not None else None
        self.share = 0.0

    def look(self) -> None:
        """Read the files; what cannot be read counts as no pressure."""
        self.share = 0.0
        if self._folder is None or self._files is None:
            return
        try:
            limit = (self._folder / self._files.limit).read_text(encoding="ascii").strip()
            used = int((self._folder / self._files.current).read_text(encoding="ascii"))
            statistics = (self._folder / "memory.stat").read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return
        if not limit.isdigit() or not 0 < int(limit) < _UNLIMITED_BYTES:
            return
        named = dict(zip(statistics[::2], statistics[1::2], strict=False))
        self.share = max(0, used - int(named.get(self._files.inactive, "0"))) / int(limit)

    def refuses(self, *, large: bool) -> bool:
        """Return whether a request has to be refused; `large`: its content is, or may be."""
        return self.share > (LARGE_SHARE if large else ALL_SHARE)
