"""Small POSTs by wrk: started on the cores of the load, bounded in time, its figures read back as JSON."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.places import LOOPBACK, WRK_SCRIPT, find_program

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.route import Route

POST_PATH: Final = "/bench/post"
PATIENCE_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Posts:
    """What wrk saw. `bad_statuses`: answers other than 2xx and 3xx; `broken`: connections refused, cut or too slow."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    bad_statuses: int
    broken: int


class LoadError(Exception):
    """The load could not be put on, or nothing could be measured under it."""


def start_posts(
    route: Route, *, connections: int, seconds: float, keys: Path, pause_ms: int = 0
) -> subprocess.Popen[str]:
    """Start sending; `keys` is a file of gateway keys, one a line. LoadError where wrk is not installed."""
    program = find_program("wrk")
    if program is None:
        raise LoadError("wrk is not installed")
    whole_seconds = f"{max(1, round(seconds))}s"
    url = f"http://{LOOPBACK}:{route.port}{route.request_target(POST_PATH)}"
    timing = ["--duration", whole_seconds, "--timeout", f"{_ANSWER_SECONDS}s", "--latency"]
    return subprocess.Popen(
        [program, "--threads", "1", "--connections", str(connections), *timing, "--script", str(WRK_SCRIPT), url],
        env={
            **os.environ,
            "KEYS": str(keys),
            "TARGET": route.fields(POST_PATH).get("x-fal-target-url", ""),
            "PAUSE_MS": str(pause_ms),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish_posts(process: subprocess.Popen[str], *, patience_seconds: float = PATIENCE_SECONDS) -> Posts:
    """Wait for wrk's end; LoadError where it does not end in time, says nothing, or no request was answered."""
    try:
        said, _ = process.communicate(timeout=patience_seconds)
    except subprocess.TimeoutExpired as fault:
        process.kill()
        process.communicate()
        raise LoadError("wrk did not end in time") from fault
    return read_posts(said)


def read_posts(said: str) -> Posts:
    """Return the figures in wrk's output: the JSON line of load/post.lua, the last one."""
    last = said.rstrip().rpartition("\n")[2]
    if not last.startswith("{"):
        raise LoadError(f"wrk said {last!r}")
    posts = Posts(**json.loads(last))
    if posts.requests - posts.bad_statuses <= 0:
        others = f"{posts.bad_statuses} other statuses, {posts.broken} broken"
        raise LoadError(f"no request was answered well within {posts.seconds:.1f} s: {others}")
    return posts


def send_posts(route: Route, *, connections: int, seconds: float, keys: Path) -> Posts:
    """Send small POSTs as fast as they are answered."""
    process = start_posts(route, connections=connections, seconds=seconds, keys=keys)
    return finish_posts(process, patience_seconds=seconds + PATIENCE_SECONDS)
