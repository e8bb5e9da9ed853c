"""Signals as terminals, systemd, supervisord and container runtimes send them: at once to all, too early, to one."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from tests.harness.gateway import DEFAULTS, Gateway
from tests.harness.messages import http_response, proxy_request
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.process import GatewayProcess
from tests.harness.waiting import until
from tests.wire.test_reload import opened

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from tests.harness.gateway import StartGateway
    from tests.harness.origin import OriginConnection, ScriptedOrigin, StartOrigin

EXIT_SECONDS: Final = 10.0
READY_SECONDS: Final = 20.0
CHILDREN: Final = ("worker", "ledger", "ops", "policy")
OUTSIDE: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
EXEC: Final = "; os.execv(sys.executable, [sys.executable, '-m', 'gateway', *sys.argv[1:]])"


@pytest.fixture
def origin(start_origin: StartOrigin, end: threading.Event) -> ScriptedOrigin:
    """Return an origin that answers a paid run with three units once `end` is set, and all else at once."""

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.body == b'"slow"':
                assert end.wait(30)
            connection.send(http_response(fields=[("x-fal-billable-units", "3")]))

    return start_origin(script)


def pids_of(gateway: Gateway) -> dict[str, int]:
    """Return the last process that was started in each role."""
    return {event["role"]: event["pid"] for event in gateway.events("process_started")}


def rows(gateway: Gateway) -> list[tuple[str, str]]:
    """Return status and units of every purchase in the ledger."""
    with sqlite3.connect(gateway.process.folder / "fal-gateway.db") as database:
        return list(database.execute("SELECT status, units FROM fal_gateway_purchases"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_is_one_drain(
    start_gateway: StartGateway,
    origin: ScriptedOrigin,
    key: GatewayKey,
    *,
    end: threading.Event,
    number: signal.Signals,
) -> None:
    """What is paid for is answered whole, and its row is in the ledger when the gateway has ended."""
    gateway = start_gateway(origin, workers=2, FALGW_DRAIN_TIMEOUT="30")
    with gateway.connect() as client:
        client.send(proxy_request(key=key, body=b'"slow"'))
        origin.wait_for_requests(1)
        os.killpg(gateway.pid, number)
        gateway.wait_for_event("gateway_draining")
        end.set()
        assert client.read_response().status == 200
    assert gateway.process.wait(EXIT_SECONDS) == 0
    assert [(status, float(units)) for status, units in rows(gateway)] == [("settled", 3.0)]
    assert [event["asked"] for event in gateway.events("gateway_draining")] == [1]
    assert gateway.events("process_died") == gateway.events("exchanges_cut") == []


def test_a_ledger_process_that_dies_in_a_drain_is_started_again(
    start_gateway: StartGateway, origin: ScriptedOrigin, key: GatewayKey, *, end: threading.Event
) -> None:
    """Who drains for minutes must not lose the one process that writes rows: they are there at the end all the same."""
    gateway = start_gateway(origin, FALGW_DRAIN_TIMEOUT="30")
    ledger = pids_of(gateway)["ledger"]
    with gateway.connect() as client:
        client.send(proxy_request(key=key, body=b'"slow"'))
        origin.wait_for_requests(1)
        gateway.process.signal(signal.SIGTERM)
        gateway.wait_for_event("gateway_draining")
        os.kill(ledger, signal.SIGKILL)
        gateway.wait_for_event("process_died", lambda event: event["role"] == "ledger")
        end.set()
        assert client.read_response().status == 200
    assert gateway.process.wait(EXIT_SECONDS) == 0
    assert [(status, float(units)) for status, units in rows(gateway)] == [("settled", 3.0)]


def test_a_signal_to_a_single_child_does_nothing(
    start_gateway: StartGateway, origin: ScriptedOrigin, key: GatewayKey
) -> None:
    """Only the first process acts on signals from outside: no child ends, and no call is cut."""
    gateway = start_gateway(origin)
    children = pids_of(gateway)
    assert sorted(children) == sorted(CHILDREN)
    for pid in children.values():
        for number in OUTSIDE:
            os.kill(pid, number)
    with gateway.connect() as client:
        assert client.ask(proxy_request(key=key)).status == 200
    until(lambda: rows(gateway), "the row of that call, which the ledger process writes")
    assert gateway.ask_ops("/readyz").status == 200
    gateway.stop()
    assert gateway.events("process_died") == []


def test_a_stop_and_continue_ends_nothing(start_gateway: StartGateway, origin: ScriptedOrigin, key: GatewayKey) -> None:
    """Processes that were stopped for longer than they meant to wait (`docker pause`) go on where they were."""
    gateway = start_gateway(origin)
    family = gateway.process.family()
    assert len(family) > len(("supervisor", "worker", "ledger"))
    for _ in range(3):
        for process in family:
            process.suspend()
        until(lambda: {process.status() for process in family} == {psutil.STATUS_STOPPED}, "all to stop")
        time.sleep(0.3)  # longer than any process waits for a signal
        for process in family:
            process.resume()
        until(lambda: psutil.STATUS_STOPPED not in {process.status() for process in family}, "all to go on")
    with gateway.connect() as client:
        assert client.ask(proxy_request(key=key)).status == 200
    until(lambda: rows(gateway), "the row of that call")
    gateway.stop()
    assert gateway.events("process_died") == []
    assert [event["asked"] for event in gateway.events("gateway_draining")] == [1]


# -- before it is ready -----------------------------------------------------------------------------------------------


class Starting:
    """A gateway held up in its start: its policy is a pipe that has a writer and no content yet."""

    def __init__(self, folder: Path, key: GatewayKey, origin: ScriptedOrigin) -> None:
        self._text = policy_text(key)
        pipe = folder / "policy.pipe"
        os.mkfifo(pipe)
        settings = {"FALGW_ORIGIN_OVERRIDES": origin.overrides, "FALGW_POLICY": str(pipe)}
        self.gateway = Gateway(folder / "gateway", policy=None, env=settings)
        self._pipe = pipe
        self._writer = until(lambda: opened(pipe), "the gateway to read its policy", timeout_seconds=READY_SECONDS)

    def let_go(self) -> None:
        """Give it its policy; whoever reads it again finds a file."""
        file = self._pipe.with_suffix(".yaml")
        file.write_text(self._text, encoding="utf-8")
        file.rename(self._pipe)
        os.write(self._writer, self._text.encode())
        os.close(self._writer)


@pytest.fixture
def starting(tmp_path: Path, key: GatewayKey, origin: ScriptedOrigin) -> Iterator[Starting]:
    """Return a gateway that is about to read its policy."""
    held = Starting(tmp_path, key, origin)
    yield held
    held.gateway.close(expected=None)


def test_sighup_in_the_start_is_left_alone(starting: Starting) -> None:
    """Whoever reloads by SIGHUP right after a start does not end it; the file is read anyway."""
    starting.gateway.process.signal(signal.SIGHUP)
    starting.let_go()
    starting.gateway.wait_ready()
    starting.gateway.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_start_ends_it_with_0(starting: Starting, number: signal.Signals) -> None:
    """The signal has a handler before anything is read, without which the first process of a container misses it."""
    starting.gateway.process.signal(number)
    assert starting.gateway.process.wait(EXIT_SECONDS) == 0
    assert starting.gateway.process.stderr() == ""


def test_closed_standard_streams_end_nothing(tmp_path: Path) -> None:
    """Started with stdin, stdout and stderr closed it serves, and no socket takes their numbers."""
    script = "import os, sys; [os.close(fd) for fd in (0, 1, 2)]" + EXEC
    gateway = Gateway(tmp_path, policy=None, env={}, program=("-c", script))
    try:
        gateway.wait_ready()
        for member in gateway.process.family():
            streams = [Path(f"/proc/{member.pid}/fd/{number}").readlink() for number in (0, 1, 2)]
            assert streams == [Path(os.devnull)] * 3
    finally:
        gateway.close()


def test_a_reader_of_stdout_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    """`serve | head -1`: the key for this run is printed for no one, and the gateway serves and stops as usual."""
    script = "import os, sys; os.dup2(os.pipe()[1], 1)" + EXEC  # the reader is closed by the exec
    gateway = Gateway(tmp_path, policy=None, env={}, program=("-c", script))
    try:
        gateway.wait_ready()
        gateway.wait_for_event("gateway_ready")
    finally:
        gateway.close()


# -- a supervisor that is killed --------------------------------------------------------------------------------------


def test_a_new_gateway_starts_while_orphans_drain(
    tmp_path: Path, origin: ScriptedOrigin, key: GatewayKey, *, end: threading.Event
) -> None:
    """The orphans let go of both ports at once, also within a long shutdown delay, and end what they have open.

    Their journal is theirs until they have ended.
    """
    settings = {**dict(DEFAULTS), "FALGW_ORIGIN_OVERRIDES": origin.overrides}
    slow = {**settings, "FALGW_DRAIN_TIMEOUT": "60", "FALGW_SHUTDOWN_DELAY": "60"}
    gateway = Gateway(tmp_path, policy=policy_text(key), env=slow, workers=2).wait_ready()
    orphans = gateway.process.family()[1:]
    successor = None
    try:
        with gateway.connect() as client:
            client.send(proxy_request(key=key, body=b'"slow"'))
            origin.wait_for_requests(1)
            os.kill(gateway.pid, signal.SIGKILL)
            ports = {"FALGW_PORT": str(gateway.port), "FALGW_OPS_PORT": str(gateway.ops_port)}
            settings |= {**ports, "FALGW_POLICY": str(gateway.policy_file)}
            successor = GatewayProcess(["serve"], folder=tmp_path, env=settings)
            until(lambda: is_ready(successor), "the new gateway", timeout_seconds=READY_SECONDS)
            with gateway.connect() as other:
                assert other.ask(proxy_request(key=key)).status == 200
            end.set()
            assert client.read_response().status == 200
        _, alive = psutil.wait_procs(orphans, timeout=EXIT_SECONDS)
        assert alive == []
        successor.stop()
    finally:
        for process in orphans:
            if process.is_running():
                process.kill()
        if successor is not None:
            successor.kill()
        gateway.close(expected=-signal.SIGKILL)


@pytest.mark.parametrize("is_in_ledger", [True, False])
def test_a_budget_holds_what_orphans_have_under_way(
    tmp_path: Path, origin: ScriptedOrigin, *, end: threading.Event, is_in_ledger: bool
) -> None:
    """The new gateway counts it from the start, also what only a journal has; what it came to is in the ledger soon."""
    key = GatewayKey(entry={"budgets": [{"usd": "5", "period": "month"}]})
    price = {"endpoint": "fal-ai/flux/dev", "unit": "image", "usd": "1", "typical_units": "3"}
    gateway = Gateway(
        tmp_path, policy=policy_text(key, prices=[price]), env={"FALGW_ORIGIN_OVERRIDES": origin.overrides}
    ).wait_ready()
    orphans = gateway.process.family()[1:]
    successor = None
    try:
        (ledger,) = [event["pid"] for event in gateway.events("process_started") if event["role"] == "ledger"]
        if not is_in_ledger:
            os.kill(ledger, signal.SIGSTOP)
        with gateway.connect() as client:
            client.send(proxy_request(key=key, body=b'"slow"'))
            origin.wait_for_requests(1)
            if is_in_ledger:
                until(lambda: [status for status, _ in rows(gateway)] == ["held"], "the run's row")
            os.kill(gateway.pid, signal.SIGKILL)
            os.kill(ledger, signal.SIGKILL)
            ports = {"FALGW_PORT": str(gateway.port), "FALGW_OPS_PORT": str(gateway.ops_port)}
            settings = {**dict(DEFAULTS), "FALGW_ORIGIN_OVERRIDES": origin.overrides, **ports}
            settings["FALGW_POLICY"] = str(gateway.policy_file)
            successor = GatewayProcess(["serve"], folder=tmp_path, env=settings)
            until(lambda: is_ready(successor), "the new gateway", timeout_seconds=READY_SECONDS)
            with gateway.connect() as other:
                assert other.ask(proxy_request(key=key)).status == 402
                end.set()
                assert client.read_response().status == 200
                until(lambda: rows(gateway) == [("settled", "3")], "the run's cost", timeout_seconds=READY_SECONDS)
                assert other.ask(proxy_request(key=key)).status == 402
        successor.stop()
    finally:
        for process in orphans:
            if process.is_running():
                process.kill()
        if successor is not None:
            successor.kill()
        gateway.close(expected=-signal.SIGKILL)


def is_ready(process: GatewayProcess) -> bool:
    """Say whether a gateway has logged that it is; on its ops port the one before may still answer for a moment."""
    return process.alive() and "gateway_ready" in process.stderr()


def test_a_port_in_use_names_host_port_and_settings(tmp_path: Path, start_origin: StartOrigin) -> None:
    """Both listeners are tried, and each that cannot be had has its line."""
    data, ops = (str(start_origin().port) for _ in range(2))
    env = {**dict(DEFAULTS), "FALGW_OPS_PORT": ops}
    process = GatewayProcess(["serve", "--host", "127.0.0.1", "--port", data], folder=tmp_path, env=env)
    try:
        assert process.wait(READY_SECONDS) == 1
        reason = "the address is in use by another program, perhaps another gateway"
        assert process.stderr().splitlines() == [
            f"cannot start: cannot listen on 127.0.0.1:{data} (FALGW_HOST, FALGW_PORT): {reason}",
            f"cannot start: cannot listen on 127.0.0.1:{ops} (FALGW_OPS_HOST, FALGW_OPS_PORT): {reason}",
        ]
    finally:
        process.kill()
