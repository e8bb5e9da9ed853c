"""The origin that every system stands before: the C program in `origin/`, built when its source is newer.

It tells its counters at `/stats`; a `Counters` connection is kept open, since asking must cost next to nothing.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from benchmarks.places import LOOPBACK, ORIGIN_PROGRAM, ORIGIN_SOURCE
from benchmarks.processes import Pinned

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

START_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Counters:
    """What the origin has counted so far: see `put_stats` in origin/answer.c. `last_abort_ns` is monotonic time.

    `closed`: connections that it closed by itself some time after an answer (`stale`); `twice`: ids seen before.
    """

    requests: int
    connections: int
    open: int
    aborted: int
    last_abort_ns: int
    closed: int
    twice: int
    content_bytes: int


class OriginError(Exception):
    """The origin cannot be built or does not start."""


def build() -> None:
    """Compile the origin where it is missing or older than its source; OriginError tells what the compiler said."""
    sources = sorted(ORIGIN_SOURCE.glob("*.c"))
    newest = max(path.stat().st_mtime for path in ORIGIN_SOURCE.iterdir())
    if ORIGIN_PROGRAM.exists() and ORIGIN_PROGRAM.stat().st_mtime > newest:
        return
    ORIGIN_PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(ORIGIN_PROGRAM), *map(str, sources)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as fault:
        raise OriginError("no C compiler: `cc` is not installed") from fault
    except subprocess.CalledProcessError as fault:
        raise OriginError(f"the origin does not compile:\n{fault.stderr}") from fault


class Origin:
    """A running origin on a free port."""

    def __init__(self, folder: Path, *, cores: Iterable[int]) -> None:
        """Build and start it; OriginError where that fails."""
        build()
        output = folder / "origin.log"
        self._process = Pinned([str(ORIGIN_PROGRAM)], cores=cores, output=output)
        self.port = self._announced(output)
        self._connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=START_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.stop()

    def counters(self) -> Counters:
        """Ask for the counters as they are now."""
        self._connection.request("GET", "/stats")
        return Counters(**json.loads(self._connection.getresponse().read()))

    def _announced(self, output: Path) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and not self._process.has_ended:
            said = output.read_text()
            if said.endswith("\n"):
                return int(said)
            time.sleep(_LOOK_SECONDS)
        self._process.stop()
        raise OriginError(f"the origin did not start; it said {output.read_text()!r}")
