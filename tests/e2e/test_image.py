"""The image in a container: who it runs as, what it may write, what it carries, and how it starts, stops and mends."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from gateway.version import VERSION
from tests.e2e.stream import EVENTS, Reader, event
from tests.e2e.tools import RUN_FLAGS, run
from tests.harness.messages import proxy_head, proxy_request
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.container import ContainedEmulator, ContainedGateway
    from tests.e2e.stream import PacedStream
    from tests.harness.policy import GatewayKey

MEMORY_BYTES: Final = 256 * 1024 * 1024
UPLOAD_BYTES: Final = 60 * 1000 * 1000
PIECE: Final = bytes(range(256)) * 256
USER: Final = 65532
BACK_SECONDS: Final = 15.0
SIZE_MOST_BYTES: Final = 110_000_000
LOOK_ABOUT: Final = """
import json, os, shutil
tools = [name for name in ("pip", "gcc", "cc", "make") if shutil.which(name)]
try:
    open("/opt/fal-gateway/written", "w")
except OSError as fault:
    refused = fault.strerror
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({"tools": tools, "refused": refused, "uid": os.getuid(), "gid": os.getgid(),
                  "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16)}))
"""
TAKE_STOCK: Final = """
import importlib.metadata, os
os.stat("/var/lib/dpkg/status")
print(*sorted(each.name for each in importlib.metadata.distributions()), sep="\\n")
"""
ORPHAN: Final = """
import os
if os.fork() == 0:
    if os.fork() == 0:
        os.read(0, 1)
    os._exit(0)
os.wait()
"""


def upload(gateway: ContainedGateway, key: GatewayKey, *, size_bytes: int = UPLOAD_BYTES) -> tuple[str, bytes]:
    """Send so many bytes; return their digest, and the content of the answer."""
    digest = hashlib.sha256()
    with gateway.connect() as client:
        client.send(proxy_head(key=key, fields=[("Content-Length", str(size_bytes))]))
        for at in range(0, size_bytes, len(PIECE)):
            piece = PIECE[: size_bytes - at]
            digest.update(piece)
            client.send(piece)
        answer = client.read_response()
    assert answer.status == http.client.OK, answer
    return digest.hexdigest(), answer.body


def test_it_runs_as_nobody_and_can_write_only_to_its_volume(
    start_container: Callable[..., ContainedGateway], contained_emulator: ContainedEmulator, key: GatewayKey
) -> None:
    """A number for a user, no capability, no tool that installs, a root file system that nobody can write to."""
    gateway = start_container(contained_emulator.overrides)
    seen = json.loads(gateway.container.execute("python3", "-c", LOOK_ABOUT))
    assert seen == {
        "tools": [],
        "refused": "Read-only file system",
        "uid": USER,
        "gid": USER,
        "capabilities": 0,
    }
    assert gateway.wait_for_event("gateway_ready")["compiled"] is True
    with gateway.connect() as client:
        assert client.ask(proxy_request(key=key)).status == http.client.OK


def test_what_it_says_of_itself(image: str) -> None:
    """Version, packages and Debian's list are there for whoever takes stock of it; it adds little to its base."""
    (labels,) = json.loads(run("podman", "inspect", "--type=image", "--format", "[{{json .Config.Labels}}]", image))
    assert labels["org.opencontainers.image.version"] == VERSION
    python = ("--entrypoint=/opt/fal-gateway/bin/python", image, "-c", TAKE_STOCK)
    packages = set(run("podman", "run", "--rm", *RUN_FLAGS, *python).split())
    assert {"fal-gateway", "tornado", "pycurl", "SQLAlchemy"} <= packages
    assert not packages & {"pip", "setuptools", "mypy", "pytest"}
    layers = json.loads(run("podman", "history", "--format", "json", image))
    added = sum(layer["size"] for layer in layers if "import" not in json.dumps(layer).lower())
    assert 0 < added < SIZE_MOST_BYTES


@pytest.mark.parametrize("user", ["4242", "4242:4242"])
def test_any_user_will_do(
    start_container: Callable[..., ContainedGateway],
    contained_emulator: ContainedEmulator,
    key: GatewayKey,
    tmp_path: Path,
    *,
    user: str,
) -> None:
    """A number alone comes with group 0, which may write to the folder; any other group brings a folder of its own."""
    own = tmp_path / "ledger"
    own.mkdir()
    os.chown(own, int(user.partition(":")[0]), 0)
    volume = [f"--volume={own}:/var/lib/fal-gateway"] if ":" in user else []
    gateway = start_container(contained_emulator.overrides, f"--user={user}", *volume)
    assert gateway.container.first().uids().real == int(user.partition(":")[0])
    with gateway.connect() as client:
        assert client.ask(proxy_request(key=key)).status == http.client.OK


def test_a_large_upload_needs_no_memory(
    start_container: Callable[..., ContainedGateway], contained_emulator: ContainedEmulator, key: GatewayKey
) -> None:
    """60 MB pass whole through a container that may have 256 MiB, gateway, ledger and all."""
    gateway = start_container(contained_emulator.overrides, f"--memory={MEMORY_BYTES}")
    assert gateway.container.inspect("HostConfig.Memory") == MEMORY_BYTES
    digest, body = upload(gateway, key)
    told = json.loads(body)
    assert (told["sha256"], told["bytes"]) == (digest, UPLOAD_BYTES)
    assert gateway.container.inspect("State.OOMKilled") is False
    assert not gateway.events("process_died")


def test_its_memory_limit_is_seen(
    start_container: Callable[..., ContainedGateway], contained_emulator: ContainedEmulator
) -> None:
    """The limit that pressure is measured by is the container's own, whichever version of control groups it has."""
    gateway = start_container(contained_emulator.overrides, f"--memory={MEMORY_BYTES}")
    look = "from gateway.platform.memory_pressure import *; p = MemoryPressure(own_group()); p.look(); print(p.share)"
    share = float(gateway.container.execute("/opt/fal-gateway/bin/python", "-c", look))
    assert 0.05 < share < 1


def test_stopping_lets_a_stream_run_out(
    start_container: Callable[..., ContainedGateway], paced: PacedStream, key: GatewayKey
) -> None:
    """SIGTERM to the container's first process: not ready, the open stream goes on to its end, exit code 0."""
    gateway = start_container(paced.origin.overrides, FALGW_DRAIN_TIMEOUT="60")
    with Reader(gateway.port, key) as reader:
        assert reader.next_event() == event(0)
        gateway.process.signal(signal.SIGTERM)
        until(lambda: gateway.ask_ops("/readyz").status == http.client.SERVICE_UNAVAILABLE, "readiness to go")
        paced.was_read()
        reader.read_on(paced, first=1)
    assert gateway.process.wait(20) == 0
    assert gateway.container.inspect("State.ExitCode") == 0
    (exchange,) = gateway.events("exchange")
    assert (exchange["outcome"], exchange["status"]) == ("ok", http.client.OK), exchange


def test_a_worker_that_is_killed_comes_back(
    start_container: Callable[..., ContainedGateway], contained_emulator: ContainedEmulator, key: GatewayKey
) -> None:
    """The supervisor starts another one, and the container goes on."""
    gateway = start_container(contained_emulator.overrides, FALGW_WORKERS="2")
    first = gateway.container.first()
    assert first.name() == "tini"  # it takes signals from its first moment on, which Python does not
    victim = next(child for child in first.children(recursive=True) if listens(child, gateway.port))
    victim.kill()
    died = gateway.wait_for_event("process_died")
    assert (died["role"], died["code"]) == ("worker", -signal.SIGKILL)
    until(
        lambda: gateway.ready() and gateway.ask_ops("/readyz").json()["workers"]["ready"] == 2,
        "the worker's return",
        timeout_seconds=BACK_SECONDS,
    )
    with gateway.connect() as client:
        assert client.ask(proxy_request(key=key)).status == http.client.OK
    assert gateway.container.first() == first


def listens(process: psutil.Process, port: int) -> bool:
    """Say whether a process listens on a port."""
    return any(it.status == psutil.CONN_LISTEN and it.laddr.port == port for it in process.net_connections("tcp"))


def test_orphans_are_reaped(
    start_container: Callable[..., ContainedGateway], contained_emulator: ContainedEmulator
) -> None:
    """A process whose parent has gone is the first process's, as anywhere: it leaves no zombie when it ends."""
    gateway = start_container(contained_emulator.overrides)
    first = gateway.container.first()
    own = {child.pid for child in first.children()}
    gateway.container.execute("python3", "-c", ORPHAN)
    until(lambda: {child.pid for child in first.children()} == own, "the orphan to be reaped")


def test_an_event_stream_comes_piece_by_piece(
    start_container: Callable[..., ContainedGateway], paced: PacedStream, key: GatewayKey
) -> None:
    """Each event is with the caller before the origin has sent the next."""
    gateway = start_container(paced.origin.overrides)
    with Reader(gateway.port, key) as reader:
        reader.read_on(paced)
    assert EVENTS > 1


def test_without_a_credential_it_says_so_and_ends(image: str) -> None:
    """Exit code 78 reaches whoever started the container, with every error."""
    command = "podman", "run", "--rm", *RUN_FLAGS, image
    with pytest.raises(AssertionError, match=r"exit 78\n(.|\n)*no fal credential"):
        run(*command)
