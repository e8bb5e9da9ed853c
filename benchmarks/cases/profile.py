"""Where the gateway's CPU time goes under small POSTs, and which part of it metrics and log take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.case import Case, Column, Entry, Figures, Stage
from benchmarks.load.wrk import LoadError, send_posts
from benchmarks.places import COMPILED, GATEWAY_PYTHON, ROOT, TOOLS
from benchmarks.processes import cpu_of, cpu_seconds
from benchmarks.sampling import FOLDER_VARIABLE
from benchmarks.systems import GATEWAY, System, gateway

if TYPE_CHECKING:
    from benchmarks.running import Running
    from benchmarks.systems import Launch, Place

CONNECTIONS: Final = 64
_WRITE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.02
_TIMING_SECONDS: Final = 60.0
_FUNCTIONS: Final = 40
METERING: Final = "metrics and log, with all that they call and the log's thread"
FUNCTIONS_FILE: Final = TOOLS / "functions.txt"
"""The functions that took most of the worker's main thread in the last measurement."""


def sampled_gateway() -> System:
    """Return the gateway with a sampler in its workers."""
    plain = gateway("gateway, sampled", module="benchmarks.sampling", compiled=False)

    def launch(place: Place) -> Launch:
        made = plain.launch(place)
        return replace(made, env={**made.env, FOLDER_VARIABLE: str(place.folder)})

    return replace(plain, launch=launch)


def measure_shares(stage: Stage) -> Figures:
    """Put on small POSTs, then split the worker's CPU time: by sample in its main thread, other threads whole.

    Figures in percent of the family's CPU time; `METERING` is the sum of both kinds of its work.
    """
    running = stage.running
    family, before = running.cpu, {pid: _other_threads(pid) for pid in running.pids}
    send_posts(running.route, connections=CONNECTIONS, seconds=stage.extent.post_seconds, keys=running.keys)
    worker = _busiest(running)
    family, threads = running.cpu - family, _other_threads(worker) - before[worker]
    notes = _notes(running, worker)
    main_share = 100 * (1 - threads / family)
    packages = {name: main_share * samples / notes["total"] for name, samples in notes["packages"].items()}
    _keep_functions(notes)
    return {
        METERING: main_share * notes["metering"] / notes["total"] + 100 * threads / family,
        "thread of the log": 100 * threads / family,
        **packages,
    }


def measure_metering(stage: Stage) -> Figures:
    """Put on small POSTs; the log's thread as the kernel counted it, the metrics as they take by themselves."""
    running = stage.running
    family, before = running.cpu, {pid: _other_threads(pid) for pid in running.pids}
    posts = send_posts(running.route, connections=CONNECTIONS, seconds=stage.extent.post_seconds, keys=running.keys)
    worker = _busiest(running)
    family, threads = running.cpu - family, _other_threads(worker) - before[worker]
    cpu_us, metrics_us = 1e6 * family / posts.requests, alone_us("metrics_alone")
    return {
        "cpu_us": cpu_us,
        "log_us": cpu_us * threads / family,
        "metrics_us": metrics_us,
        METERING: 100 * (threads / family + metrics_us / cpu_us),
    }


def alone_us(module: str) -> float:
    """Return what a part takes by itself, compiled: the microseconds that `python -m benchmarks.MODULE` prints."""
    command = (str(GATEWAY_PYTHON), "-P", "-m", f"benchmarks.{module}")
    env = {**os.environ, "PYTHONPATH": f"{COMPILED}:{ROOT}"}
    timed = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=_TIMING_SECONDS)
    if timed.returncode:
        raise LoadError(f"{module} could not be timed: {timed.stderr[-200:]}")
    return float(timed.stdout)


def _busiest(running: Running) -> int:
    return max(running.pids, key=lambda pid: cpu_seconds([pid]))


def _other_threads(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task")
    return sum(cpu_of(task / "stat") for task in tasks.iterdir() if task.name != str(pid))


def _notes(running: Running, worker: int) -> dict[str, Any]:
    path = running.folder / f"profile-{worker}.json"
    path.unlink(missing_ok=True)
    os.kill(worker, signal.SIGUSR2)
    deadline = time.monotonic() + _WRITE_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise LoadError("the sampler wrote nothing")
        time.sleep(_LOOK_SECONDS)
    notes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notes


def _keep_functions(notes: dict[str, Any]) -> None:
    lines = [
        f"{100 * samples / notes['total']:6.2f} %  {name}\n"
        for name, samples in list(notes["functions"].items())[:_FUNCTIONS]
    ]
    FUNCTIONS_FILE.write_text("".join(lines), encoding="utf-8")


CASES: Final = (
    Case(
        key="metering",
        title="What metrics and log take",
        how="64 connections, small POSTs; the log's thread as the kernel counts it, the metrics timed by themselves",
        columns=(
            Column("cpu_us", "CPU µs a request", 1, better="less"),
            Column("log_us", "log µs", 2, better="less"),
            Column("metrics_us", "metrics µs", 2, better="less"),
            Column(METERING, "both, %", 1, better="less"),
        ),
        entries=(Entry("gateway", GATEWAY, measure_metering),),
        group="profile",
    ),
    Case(
        key="profile",
        title="Where the CPU time of the pure gateway goes",
        how="not compiled, so that functions can be told apart; 64 connections, small POSTs; % of the CPU time of all"
        " its processes, by sampling its worker every 2 ms",
        columns=(),
        entries=(Entry("gateway", sampled_gateway(), measure_shares),),
        group="profile",
    ),
)
