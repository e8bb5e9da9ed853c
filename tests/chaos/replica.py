"""One gateway over all its lives: killed, stopped and started again in the same folder, on the same ports.

The decision it carries: a life's log is kept under its number, since what a process wrote that outlived its supervisor
must be searched too; and every process of every life is known by its id, so that each can be ended by it.
"""

from __future__ import annotations

import contextlib
import json
import resource
import time
from typing import TYPE_CHECKING, Final

import psutil

from tests.harness.gateway import Gateway
from tests.harness.ports import ReservedPort
from tests.harness.process import kill

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.chaos.disk import Disk

SHORTEST_LIFE_SECONDS: Final = 0.5
SPOOL: Final = "fal-gateway.spool"
STDERR: Final = "stderr.txt"


class Replica:
    """A gateway of a site. `problems` collects what it did that no gateway may do, as sentences."""

    def __init__(self, name: str, folder: Path, *, env: Mapping[str, str], workers: int, disk: Disk) -> None:
        self.name = name
        self.folder = folder
        self.workers = workers
        self.disk = disk
        self.life = 0
        self.began_at = 0.0
        self.kills: list[float] = []
        self.kills_in_life = 0
        self.problems: list[str] = []
        self._env = env
        self._ports = (ReservedPort(), ReservedPort())
        self.port, self.ops_port = (each.number for each in self._ports)
        self._members: dict[int, psutil.Process] = {}
        self._gateway: Gateway | None = None
        folder.mkdir()
        (folder / SPOOL).symlink_to(disk.folder / SPOOL)  # where its journals are with PostgreSQL
        (disk.folder / SPOOL).mkdir()

    @property
    def gateway(self) -> Gateway:
        """The gateway of the present life."""
        assert self._gateway is not None, f"{self.name} was not started"
        return self._gateway

    def start(self, policy: str) -> None:
        """Begin a life; does not wait for it to be ready."""
        self.life += 1
        self.kills_in_life = 0
        log = self.folder / STDERR
        if log.exists():
            log.rename(self.folder / f"stderr-{self.life - 1}.txt")
        ports = self._ports
        self._gateway = Gateway(self.folder, policy=policy, env=self._env, workers=self.workers, ports=ports)
        self.began_at = time.monotonic()

    def logs(self) -> list[Path]:
        """Return the logs of all lives."""
        return sorted(self.folder.glob("std*.txt"))

    def roles(self) -> dict[int, str]:
        """Return what each process of this life is, by id, as its log says; the dead ones too."""
        found = {self.gateway.pid: "supervisor"}
        for line in (self.folder / STDERR).read_bytes().split(b"\n"):
            if b'"process_started"' in line:
                with contextlib.suppress(ValueError):  # still being written
                    event = json.loads(line)
                    found[event["pid"]] = event["role"]
        return found

    def living(self, role: str) -> list[psutil.Process]:
        """Return the processes of this role that live, oldest first; `role` may be `any`."""
        roles = self.roles()
        family = {member.pid: member for member in self.gateway.process.family()}
        self._members.update(family)
        return [member for pid, member in sorted(family.items()) if role in {"any", roles.get(pid)}]

    def note_kill(self) -> None:
        """Remember that one of its processes is killed now: answers and log lines of that moment may be lost."""
        self.kills.append(time.monotonic())
        self.kills_in_life += 1

    def kill(self, role: str, choice: int) -> str:
        """Kill one process of a role; return a word on it."""
        found = self.living(role)
        if not found:
            return "none is running"
        self.note_kill()
        victim = found[choice % len(found)]
        kill(victim)
        return f"pid {victim.pid}"

    def kill_all(self) -> None:
        """Kill every process at once, the supervisor first: nobody acts on the others' deaths."""
        self.note_kill()
        for member in self.living("any"):
            kill(member)
        self.gateway.process.wait(10)

    def send(self, role: str, choice: int, number: signal.Signals) -> list[psutil.Process]:
        """Send a signal to one process of a role, or to all (`any`); return those that it was sent to."""
        found = self.living(role)
        chosen = found if role == "any" or not found else [found[choice % len(found)]]
        for member in chosen:
            signal_to(member, number)
        return chosen

    def limit_files(self, most_bytes: int) -> list[psutil.Process]:
        """Let no file of its workers and its ledger process grow beyond so many bytes; return these processes."""
        found = [*self.living("worker"), *self.living("ledger")]
        for member in found:
            limit(member, most_bytes)
        return found

    def has_ended(self) -> bool:
        """Say whether the supervisor of this life has ended."""
        return self.gateway.process.exit_code is not None

    def leftovers(self) -> Iterator[psutil.Process]:
        """Yield the processes of earlier lives, and of this one where it has ended, that still run."""
        self._members.update({each.pid: each for each in self.gateway.process.family()})
        current = set() if self.has_ended() else {each.pid for each in self.gateway.process.family()}
        for pid, member in self._members.items():
            if pid not in current and member.is_running() and member.status() != psutil.STATUS_ZOMBIE:
                yield member

    def close(self) -> None:
        """End it, and whatever is left of earlier lives, each process by its id."""
        if self._gateway is not None:
            with contextlib.suppress(AssertionError):  # its exit is judged elsewhere
                self._gateway.close(expected=None)
            for member in list(self.leftovers()):
                kill(member)
        for reserved in self._ports:
            reserved.release()


def signal_to(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to one process; harmless where it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def limit(process: psutil.Process, most_bytes: int) -> None:
    """Let no file of a process grow beyond so many bytes; harmless where it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.rlimit(psutil.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
