"""A real Redis (or Valkey) server of a test's own: a free port, a folder, nothing kept on disk.

The decision it carries: a server that is started again has the same port and nothing of what it knew, as one whose
memory was its only copy.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, Self

import redis

from tests.harness.ports import LOOPBACK, ReservedPort
from tests.harness.program import Program
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START_SECONDS: Final = 20.0
DUMP_NAME: Final = "dump.rdb"
USER: Final = "gateway"
PASSWORD: Final = "canary/p?ss#w@rd:%"  # noqa: S105 (a test server's own, with everything that a URL must escape)
ESCAPED_PASSWORD: Final = "canary%2Fp%3Fss%23w%40rd%3A%25"  # noqa: S105 (the same)
COMMANDS: Final = (
    "eval evalsha script|load ping select time get set del expire pexpire hget hmget hgetall hset hdel hexists hincrby "
    "exists rpush rpushx lrange zadd zrem zcard zrangebyscore zremrangebyscore"
)
"""What docs/settings.md says that a user of an ACL needs, and no more."""

_CLUSTER: Final = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")


class RedisServer:
    """A server on 127.0.0.1, started; `arguments` are more of its command line.

    `tls`: (certificate, key) files, and then the port speaks TLS only. `acl`: it lets in USER alone. `cluster`: it is
    the one node of a cluster. It always listens at `socket_path` too, in the clear.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: str = "redis-server",
        tls: tuple[Path, Path] | None = None,
        acl: bool = False,
        cluster: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.socket_path = folder / "redis.sock"
        self._command = [program, *self._arguments(tls), *(_CLUSTER if cluster else ()), *(_only_user() if acl else ())]
        self._acl = acl
        self._cluster = cluster
        self._program: Program | None = None
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its URL, without TLS or user."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self, *, snapshot: bytes | None = None) -> None:
        """Start it, and wait until it answers; it knows nothing, or what a snapshot says."""
        dump = self._folder / DUMP_NAME
        if snapshot is not None:
            dump.write_bytes(snapshot)
        self._program = Program(self._command, self._folder)
        until(self._answers, "an answer of redis-server", timeout_seconds=START_SECONDS)
        dump.unlink(missing_ok=True)
        if self._cluster:
            self.run("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            until(lambda: b"cluster_state:ok" in self.run("CLUSTER", "INFO"), "the cluster's state")

    def snapshot(self) -> bytes:
        """Return all that it knows now, for `start`."""
        self.run("SAVE")
        dump = self._folder / DUMP_NAME
        content = dump.read_bytes()
        dump.unlink()
        return content

    def kill(self) -> None:
        """Kill it; harmless when done twice. Its port refuses from then on."""
        program, self._program = self._program, None
        if program is not None:
            program.kill()

    def close(self) -> None:
        """Kill it and give its port back."""
        self.kill()
        self._reserved.release()

    def run(self, *words: str | float) -> Any:  # noqa: ANN401 (whatever the command answers)
        """Run one command past the gateway, as an operator would; return its answer."""
        with self._client() as client:
            return client.execute_command(*words)

    def key_names(self) -> list[str]:
        """Return the names of all keys."""
        return sorted(key.decode() for key in self.run("KEYS", "*"))

    def _client(self) -> redis.Redis:
        user = {"username": "operator", "password": "operator"} if self._acl else {}
        return redis.Redis(unix_socket_path=str(self.socket_path), protocol=2, **user)  # type: ignore[arg-type]

    def _answers(self) -> bool:
        assert self._program is not None
        self._program.check()
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1):
                return bool(self.run("PING"))
        except (OSError, redis.ConnectionError):
            return False

    def _arguments(self, tls: tuple[Path, Path] | None) -> Sequence[str]:
        ports = ["--port", str(self.port)]
        if tls:
            certificate, key = map(str, tls)
            ports = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            ports += ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
        kept = ["--save", "", "--appendonly", "no", "--bind", LOOPBACK, "--unixsocket", str(self.socket_path)]
        return [*ports, *kept]


def _only_user() -> Sequence[str]:
    """Return what lets in USER for what a gateway does, an operator for all, and nobody else."""
    allowed = [f"+{command}" for command in COMMANDS.split()]
    return (
        *("--user", USER, "on", f">{PASSWORD}", "~fgw:*", "-@all", *allowed),
        *("--user", "operator", "on", ">operator", "~*", "+@all"),
        *("--user", "default", "off"),
    )
