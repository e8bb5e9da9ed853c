"""Systems that run: started each in a folder of its own, tried out with one request, stopped by their ids."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from benchmarks.load.stale import CUT, post
from benchmarks.load.wrk import POST_PATH
from benchmarks.places import LOOPBACK
from benchmarks.processes import Pinned, cpu_seconds, family
from benchmarks.systems import Place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.origin import Origin
    from benchmarks.route import Route
    from benchmarks.systems import Launch, System

START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Cores:
    """What runs where: the system under test on its own, load and origin on the others."""

    system: tuple[int, ...]
    load: tuple[int, ...]


class StartError(Exception):
    """A system does not start, or does not answer a plain request."""


class Running:
    """A system that has been started. `keys` is a file of its secrets, one a line."""

    def __init__(self, system: System, launch: Launch, *, folder: Path, cores: Sequence[int]) -> None:
        self.name = system.name
        self.folder = folder
        self.route: Route = launch.route
        self.keys = folder / "keys.txt"
        self.keys.write_text("".join(f"{secret}\n" for secret in system.secrets), encoding="ascii")
        self._process = Pinned(launch.command, cores=cores, output=folder / "output.log", env=launch.env)

    def stop(self) -> None:
        """End it and all that it started."""
        self._process.stop()

    @property
    def has_ended(self) -> bool:
        """Whether it is gone without having been stopped."""
        return self._process.has_ended

    @property
    def pids(self) -> tuple[int, ...]:
        """Its whole family of processes, as it is now."""
        return family(self._process.pid)

    @property
    def cpu(self) -> float:
        """CPU-seconds of the whole family so far."""
        return cpu_seconds(self.pids)

    def wait_ready(self, seconds: float) -> None:
        """Wait until a small POST comes back well; StartError where that is not so in time."""
        deadline, status = time.monotonic() + seconds, 0
        while not self.has_ended and time.monotonic() < deadline:
            status = post(self.route, POST_PATH)
            if status == 200:
                return
            time.sleep(_LOOK_SECONDS)
        why = "ended at once" if self.has_ended else f"did not answer well in {seconds:.0f} s"
        raise StartError(why if status in {0, CUT} else f"{why} (status {status})")

    def said(self, most: int = 2000) -> str:
        """Return the end of what it wrote to its output."""
        return (self.folder / "output.log").read_bytes()[-most:].decode(errors="replace")


class House:
    """All systems of a case, up at the same time so that rounds can be interleaved; those that fail are left out."""

    def __init__(self, systems: Sequence[System], origin: Origin, *, folder: Path, cores: Cores) -> None:
        """Start them all; `left_out` tells by name which are not there, and why."""
        self.running: dict[str, Running] = {}
        self.left_out: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self._stack = ExitStack()
        for system in systems:
            if why := system.missing():
                self.left_out[system.name] = why
            else:
                self._start(system, origin, folder=folder, cores=cores)
        for running in tuple(self.running.values()):
            self._keep_if_ready(running)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, system: System, origin: Origin, *, folder: Path, cores: Cores) -> None:
        place_folder = folder / system.name.replace(" ", "-").replace(",", "")
        place_folder.mkdir(parents=True)
        port, ops_port = _free_ports()
        place = Place(place_folder, port=port, ops_port=ops_port, origin_port=origin.port)
        places = (*cores.system, *cores.load) if system.spreads else cores.system
        running = Running(system, system.launch(place), folder=place_folder, cores=places)
        self._stack.callback(running.stop)
        self.running[system.name] = running

    def _keep_if_ready(self, running: Running) -> None:
        try:
            running.wait_ready(START_SECONDS)
        except StartError as fault:
            self.left_out[running.name] = str(fault)
            self.outputs[running.name] = running.said()
            del self.running[running.name]
            running.stop()


def _free_ports() -> tuple[int, int]:
    """Return two ports that were free a moment ago; held both at once, so that they differ."""
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.bind((LOOPBACK, 0))
        return first.getsockname()[1], second.getsockname()[1]
