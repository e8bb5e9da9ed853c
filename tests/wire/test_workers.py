"""Several workers on one port: one that is killed takes nobody else along; exit codes say how a start went."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from tests.harness.client import RawClient
from tests.harness.gateway import DEFAULTS, Gateway
from tests.harness.messages import http_response, message, proxy_request
from tests.harness.policy import policy_text
from tests.harness.ports import LOOPBACK, refused_port
from tests.harness.process import GatewayProcess
from tests.harness.waiting import until
from tests.harness.wire import Truncated

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.harness.gateway import StartGateway
    from tests.harness.origin import OriginConnection, ScriptedOrigin, StartOrigin
    from tests.harness.policy import GatewayKey

WORKERS: Final = 3
ROLES: Final = ("worker", "ledger", "ops")
CALLERS: Final = 30
BACK_SECONDS: Final = 15.0
EXIT_SECONDS: Final = 5.0
REFUSAL_SECONDS: Final = 60.0
"""Within which a start that is refused has surely ended, on a machine as busy as may be."""

EVENT: Final = b"data: one\n\n"
HEAD: Final = message(
    "HTTP/1.1 200 OK",
    [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")],
    b"b\r\n" + EVENT + b"\r\n",
)


@pytest.fixture
def origin(start_origin: StartOrigin, end: threading.Event) -> ScriptedOrigin:
    """Return an origin whose answers to `"stream"` go on until `end`, and whose others are at once."""

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.body != b'"stream"':
                connection.send(http_response())
                continue
            connection.send(HEAD)
            assert end.wait(30)
            connection.send(b"9\r\ndata: end\r\n0\r\n\r\n")

    return start_origin(script)


def workers_of(gateway: Gateway) -> dict[int, psutil.Process]:
    """Return the processes that listen on the data port, by process id."""
    return {
        member.pid: member
        for member in gateway.process.family()[1:]
        if any(it.status == psutil.CONN_LISTEN and it.laddr.port == gateway.port for it in tcp_of(member))
    }


def tcp_of(process: psutil.Process) -> Sequence[psutil._common.pconn]:
    """Return a process's TCP sockets; none where it has just ended."""
    try:
        return list(process.net_connections("tcp4"))
    except psutil.NoSuchProcess:
        return []


def server_of(client: RawClient, workers: dict[int, psutil.Process]) -> int:
    """Wait until a worker has taken the connection; return its process id."""
    port = client.socket.getsockname()[1]

    def found() -> list[int]:
        return [
            pid for pid, worker in workers.items() if any(it.raddr and it.raddr.port == port for it in tcp_of(worker))
        ]

    (pid,) = until(found, "a worker that has taken the connection")
    return pid


def stream(client: RawClient, key: GatewayKey, *, version: str = "1.1") -> RawClient:
    """Ask for a stream and read its first event."""
    client.send(proxy_request(key=key, body=b'"stream"').replace(b" HTTP/1.1\r\n", f" HTTP/{version}\r\n".encode(), 1))
    client.reader.through(EVENT)
    return client


def rest_of(client: RawClient, *, version: str) -> bytes:
    """Return what comes behind the first event; in HTTP/1.0 the connection ends with it."""
    if version == "1.0":
        return b"".join(client.reader.rest())
    return client.reader.through(b"0\r\n\r\n").split(b"\r\n")[2]


def test_a_killed_worker_takes_nobody_else_along(
    start_gateway: StartGateway, origin: ScriptedOrigin, key: GatewayKey, *, end: threading.Event
) -> None:
    """Its own callers see a reset, those of others nothing; it is back in 15 s, and no count is lost."""
    gateway = start_gateway(origin, workers=WORKERS)
    workers = workers_of(gateway)
    assert len(workers) == WORKERS
    with ExitStack() as stack:
        answered = [stack.enter_context(gateway.connect()) for _ in range(CALLERS)]
        assert {client.ask(proxy_request(key=key)).status for client in answered} == {200}
        callers = [stack.enter_context(gateway.connect()) for _ in range(CALLERS)]
        for number, client in enumerate(callers):
            stream(client, key, version="1.0" if number % 2 else "1.1")
        held_by = [server_of(client, workers) for client in callers]
        assert set(held_by) == set(workers)  # the kernel shares callers out

        victim = held_by[0]
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        for client in [client for client, pid in zip(callers, held_by, strict=True) if pid == victim]:
            with pytest.raises(Truncated, match="reset"):
                list(client.reader.rest())
        until(lambda: len(workers_of(gateway)) == WORKERS, "three workers again", timeout_seconds=BACK_SECONDS)
        assert time.monotonic() - began < BACK_SECONDS
        assert victim not in workers_of(gateway)

        assert gateway.metrics().value("requests_total", status="200") == CALLERS
        others = [number for number, pid in enumerate(held_by) if pid != victim]
        until(lambda: gateway.metrics().value("inflight_requests") == len(others), "the victim's places to be free")
        end.set()
        assert {rest_of(callers[number], version="1.0" if number % 2 else "1.1") for number in others} == {b"data: end"}
        for _ in range(CALLERS):
            with gateway.connect() as client:
                assert client.ask(proxy_request(key=key)).status == 200
    assert gateway.metrics().value("requests_total", status="200") == 2 * CALLERS + len(others)
    died = gateway.wait_for_event("process_died", lambda event: event["pid"] == victim)
    assert (died["level"], died["code"], died["role"]) == ("error", -signal.SIGKILL, "worker")
    restarts = {role: gateway.metrics().value("process_restarts_total", process=role) for role in ROLES}
    assert restarts == {"worker": 1, "ledger": 0, "ops": 0}


def test_workers_whose_supervisor_is_killed_drain_and_end(
    tmp_path: Path, origin: ScriptedOrigin, key: GatewayKey, *, end: threading.Event
) -> None:
    """Nobody would restart them, so they take no more, let open answers run out, and leave the ports free."""
    with running(tmp_path, policy_text(key), expected=-signal.SIGKILL, origin=origin, workers=2) as gateway:
        children = gateway.process.family()[1:]
        with ExitStack() as stack:
            callers = [stream(stack.enter_context(gateway.connect()), key) for _ in range(10)]
            os.kill(gateway.pid, signal.SIGKILL)
            until(lambda: refused(gateway), "new connections to be refused")
            end.set()
            for client in callers:
                assert client.reader.through(b"0\r\n\r\n").endswith(b"data: end\r\n0\r\n\r\n")
        _, alive = psutil.wait_procs(children, timeout=EXIT_SECONDS)
        assert alive == []
        assert gateway.process.exit_code == -signal.SIGKILL
        assert len(gateway.events("exchange")) == 10


def refused(gateway: Gateway) -> bool:
    """Say whether new connections are refused."""
    try:
        RawClient(gateway.port).close()
    except ConnectionRefusedError:
        return True
    return False


@contextmanager
def running(folder: Path, policy: str, *, expected: int, origin: ScriptedOrigin, workers: int) -> Iterator[Gateway]:
    """Run a gateway that will end with another exit code than 0, and leave nothing of it behind."""
    settings = {"FALGW_ORIGIN_OVERRIDES": origin.overrides}
    gateway = Gateway(folder, policy=policy, env=settings, workers=workers)
    children: list[psutil.Process] = []
    try:
        yield gateway.wait_ready()
        children = gateway.process.family()[1:]
    finally:
        gateway.close(expected=expected)
        for child in children:
            child.kill()


# -- exit codes -------------------------------------------------------------------------------------------------------


def ended(folder: Path, **env: str) -> tuple[int, str]:
    """Run `serve` with these settings until it ends; return its exit code and what it said."""
    process = GatewayProcess(["serve"], folder=folder, env={**dict(DEFAULTS), **env})
    try:
        return process.wait(REFUSAL_SECONDS), process.stderr()
    finally:
        process.kill()


def test_broken_settings_exit_78_and_name_every_error(tmp_path: Path) -> None:
    """Nothing is started, and one run tells all that is wrong, of settings and policy."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("teams: [{id: a}]\nkeys: [{id: b, team: nobody, digests: []}]\nkeyz: []\n")
    code, said = ended(
        tmp_path, FALGW_WORKERS="none", FALGW_PORTT="1", FALGW_IDLE_TIMEOUT="-1", FALGW_POLICY=str(policy)
    )
    assert code == 78
    for name in ("FALGW_WORKERS", "FALGW_PORTT", "FALGW_IDLE_TIMEOUT", "keyz", "keys"):
        assert name in said


def test_a_start_without_a_credential_exits_78(tmp_path: Path) -> None:
    """A gateway without fal's key could serve nobody."""
    code, said = ended(tmp_path, FAL_KEY="")
    assert (code, "FAL_KEY" in said) == (78, True)


@pytest.mark.parametrize("taken", ["FALGW_PORT", "FALGW_OPS_PORT"])
def test_a_port_that_is_taken_is_said(tmp_path: Path, origin: ScriptedOrigin, taken: str) -> None:
    """A listener that cannot be had ends the start with 1 and its reason; no process stays behind."""
    ports = {"FALGW_PORT": str(refused_port()), "FALGW_OPS_PORT": str(refused_port()), taken: str(origin.port)}
    code, said = ended(tmp_path, **ports)
    assert (code, "cannot start" in said) == (1, True)
    with pytest.raises(ConnectionRefusedError):
        RawClient(int(ports["FALGW_OPS_PORT" if taken == "FALGW_PORT" else "FALGW_PORT"]))


def test_two_gateways_never_share_a_port(start_gateway: StartGateway, origin: ScriptedOrigin, tmp_path: Path) -> None:
    """Workers share a port with each other, and not with those of another gateway that was started by mistake."""
    gateway = start_gateway(origin, workers=2)
    code, said = ended(tmp_path, FALGW_PORT=str(gateway.port), FALGW_OPS_PORT=str(refused_port()))
    assert (code, "cannot start" in said) == (1, True)
    assert gateway.ready()
    assert LOOPBACK in gateway.url
