"""A PostgreSQL server of the tests' own: in a folder, on a unix socket, stopped and started as a test wants."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEBIAN: Final = Path("/usr/lib/postgresql")
USER: Final = "postgres"
CANARY: Final = "database-canary-51c2"
SECONDS: Final = 60.0


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs; AssertionError where it is not installed."""
    places = [str(place) for place in sorted(DEBIAN.glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    assert found, f"{name} is not installed (Debian: postgresql)"
    return found


class PostgresServer:
    """One server with trust in whoever reaches its socket; `close()` ends it and deletes its folder.

    It refuses to run as root, so then it runs as the user postgres. The folder is short and directly below the folder
    for temporary files: the path of a socket has at most 107 bytes.
    """

    def __init__(self) -> None:
        self._user = USER if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="falgw-pg-"))
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.folder.chmod(0o755)
        self._data = self.folder / "data"
        self._names = 0
        self._run("initdb", "--pgdata", self._data, "--auth", "trust", "--username", USER, "--encoding", "UTF8", "-N")
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def socket_path(self) -> Path:
        """Its unix socket, for a proxy before it."""
        return self.folder / ".s.PGSQL.5432"

    def url(self, database: str = USER) -> str:
        """Return the URL of a database; its password is one that must not be shown."""
        return f"postgresql://{USER}:{CANARY}@/{database}?host={quote(str(self.folder))}"

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        self._names += 1
        name = f"ledger_{self._names}"
        self._run("createdb", "--host", self.folder, "--username", USER, name)
        return self.url(name)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off -c max_connections=40"
        log = self.folder / "log"
        self._run("pg_ctl", "start", "--wait", "--pgdata", self._data, "--log", log, "--options", options)

    def stop(self) -> None:
        """Stop it: whoever is connected is cut off."""
        self._run("pg_ctl", "stop", "--wait", "--pgdata", self._data, "--mode", "fast")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all of its processes by SIGSTOP: connections stay open and say nothing, new ones are not answered."""
        server = psutil.Process(int((self._data / "postmaster.pid").read_text().split("\n", 1)[0]))
        stopped = [server, *server.children(recursive=True)]
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()

    def close(self) -> None:
        """End it and delete its folder; harmless when done twice."""
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, name: str, *arguments: str | Path) -> None:
        command: Sequence[str] = [program(name), *map(str, arguments)]
        done = subprocess.run(
            command,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if name != "pg_ctl" else subprocess.DEVNULL,  # its server would keep the pipe open
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout!r}"
