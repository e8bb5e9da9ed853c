"""Redis servers for the tests of the stores: one for all, and factories for what a test needs of its own."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.fault_proxy import FaultProxy
from tests.harness.ports import LOOPBACK
from tests.harness.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CERTIFICATE = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=redis.test"


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Run one server for the whole session."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """Return the session's server, empty."""
    shared_redis.run("FLUSHALL")
    return shared_redis


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Return `start(**options)`: a server of the test's own, ended after the test."""
    numbers = itertools.count(1)
    with ExitStack() as stack:

        def start(**options: Any) -> RedisServer:  # noqa: ANN401 (RedisServer's)
            return stack.enter_context(RedisServer(tmp_path / f"redis-{next(numbers)}", **options))

        yield start


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultProxy]:
    """Return a proxy before the session's server."""
    with FaultProxy(redis_server.port) as made:
        yield made


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Return (certificate, key) files for 127.0.0.1, signed by nobody but itself."""
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    names = ["-addext", f"subjectAltName=IP:{LOOPBACK}", "-keyout", str(key), "-out", str(made)]
    subprocess.run(["openssl", *CERTIFICATE.split(), *names], check=True, capture_output=True)
    return made, key


def has_program(name: str) -> bool:
    """Say whether a server program is installed."""
    return shutil.which(name) is not None
