"""The log of a real gateway: its life, a reader that stalls, a disk that is full, a person at a terminal."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.harness.gateway import Gateway
from tests.harness.messages import PROXY_PATH, message, proxy_request
from tests.harness.origin import ScriptedOrigin, answering
from tests.harness.policy import policy_text
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.gateway import StartGateway
    from tests.harness.policy import GatewayKey

PROGRAM: Final = str(Path(__file__).with_name("stderr_to.py"))
QUEUED: Final = 10_000
STALLED_CALLS: Final = 11_000
CALLS_AT_ONCE: Final = 500
FULL_CALLS: Final = 50
FILE_BYTES: Final = 16 << 20
LEFT_BYTES: Final = 1_000


@contextmanager
def logging_to(place: Path, folder: Path, key: GatewayKey, **env: str) -> Iterator[Gateway]:
    """Run a gateway that writes its log there, ready, in the format that it chooses by itself."""
    with ExitStack() as stack:
        origin = stack.enter_context(ScriptedOrigin(answering()))
        settings = {"FALGW_ORIGIN_OVERRIDES": origin.overrides, "FALGW_LOG_FORMAT": "", **env}
        gateway = Gateway(folder, policy=policy_text(key), env=settings, program=(PROGRAM, str(place)))
        yield stack.enter_context(gateway).wait_ready()


def exchanges(log: bytes) -> list[dict[str, Any]]:
    """Return the exchange events of a log's whole lines."""
    lines = [line for line in log.split(b"\n")[:-1] if line.startswith(b'{"timestamp"') and line.endswith(b"}")]
    return [event for event in map(json.loads, lines) if event["event"] == "exchange"]


def dropped(gateway: Gateway) -> int:
    """Return how many lines were lost so far."""
    return int(gateway.metrics().value("log_lines_dropped_total"))


def call_many(gateway: Gateway, key: GatewayKey, count: int) -> None:
    """Send so many cheap requests that are logged, and take every answer; those of strangers would be sampled."""
    fields = [("Host", "gateway.test"), ("Authorization", f"Key {key.secret}")]
    request = message(f"GET {PROXY_PATH} HTTP/1.1", fields)
    with gateway.connect() as client:
        for _ in range(count // CALLS_AT_ONCE):
            client.send(request * CALLS_AT_ONCE)
            for _ in range(CALLS_AT_ONCE):
                assert client.read_response().status == 400


class Reader:
    """Reads one end of a pipe or of a terminal, while it is let."""

    def __init__(self, fd: int) -> None:
        self.read = b""
        self._fd = fd
        self._may_read = threading.Event()
        self._may_read.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stall(self) -> None:
        """Read no more, but for what a read under way takes."""
        self._may_read.clear()

    def resume(self) -> None:
        """Read again."""
        self._may_read.set()

    def close(self) -> None:
        """Wait for the end of what is written there."""
        self.resume()
        self._thread.join(10)
        os.close(self._fd)

    def _run(self) -> None:
        while self._may_read.wait():
            try:
                piece = os.read(self._fd, 65_536)
            except OSError:  # a terminal whose other end is closed
                return
            if not piece:
                return
            self.read += piece


def test_a_stalled_reader_costs_lines_and_nothing_else(tmp_path: Path, key: GatewayKey) -> None:
    """11,000 requests before a pipe that nobody reads: all answered; what is not there later is what was counted."""
    place = tmp_path / "log.pipe"
    os.mkfifo(place)
    held = os.open(place, os.O_RDONLY | os.O_NONBLOCK)  # a writer's open waits for a reader
    os.set_blocking(held, True)
    keeper = os.open(place, os.O_WRONLY)  # the end is not there before the gateway is
    reader = Reader(held)
    with logging_to(place, tmp_path / "gateway", key) as gateway:
        os.close(keeper)
        reader.stall()
        call_many(gateway, key, STALLED_CALLS)
        lost = dropped(gateway)
        assert 0 < lost < STALLED_CALLS - QUEUED
        reader.resume()
        until(lambda: len(exchanges(reader.read)) + lost == STALLED_CALLS, "the lines that waited")
        with gateway.connect() as client:
            assert client.ask(proxy_request(key=key)).status == 200
        until(lambda: len(exchanges(reader.read)) + lost == STALLED_CALLS + 1, "a line of after the stall")
        assert dropped(gateway) == lost
    reader.close()
    assert all(json.loads(line) for line in reader.read.split(b"\n")[:-1])
    assert b'"gateway_stopped"' in reader.read


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path, key: GatewayKey) -> None:
    """Requests are answered as ever; each lost line is counted, the torn one too, and none is lost with it later."""
    place = tmp_path / "log.jsonl"
    with logging_to(place, tmp_path / "gateway", key, FILE_BYTES=str(FILE_BYTES)) as gateway:
        os.truncate(place, FILE_BYTES - LEFT_BYTES)
        with gateway.connect() as client:
            for _ in range(FULL_CALLS):
                assert client.ask(proxy_request(key=key)).status == 200
            until(lambda: len(exchanges(tail(place))) + dropped(gateway) == FULL_CALLS, "every line, here or counted")
            assert dropped(gateway) > FULL_CALLS // 2
            for process in gateway.process.family():
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            lost = dropped(gateway)
            assert client.ask(proxy_request(key=key)).status == 200
            until(lambda: len(exchanges(tail(place))) + lost == FULL_CALLS + 1, "a line of after the outage")
        assert dropped(gateway) == lost


def tail(place: Path) -> bytes:
    """Return what was logged behind the hole that stands for a full disk."""
    return place.read_bytes()[FILE_BYTES - LEFT_BYTES :]


def test_a_gateways_life_is_told_in_order(start_gateway: StartGateway) -> None:
    """From the start to the stop, with a worker that dies in between; no library has a word in it."""
    gateway = start_gateway("fal.run=http://127.0.0.1:1")
    (worker,) = [event["pid"] for event in gateway.events("process_started") if event["role"] == "worker"]
    os.kill(worker, signal.SIGKILL)
    gateway.wait_for_event("process_died", lambda event: (event["pid"], event["code"]) == (worker, -signal.SIGKILL))
    gateway.wait_for_event("process_started", lambda event: event["role"] == "worker" and event["pid"] != worker)
    gateway.wait_ready()
    gateway.close()
    names = [event["event"] for event in gateway.events()]
    names.remove("ledger_up")  # told by another process: its place among the supervisor's is the kernel's choice
    others = ["process_died", "process_started", "gateway_draining", "gateway_stopped"]
    assert names == ["gateway_starting", *["process_started"] * 4, "gateway_ready", *others]


def test_a_person_at_a_terminal_reads_words(tmp_path: Path, key: GatewayKey) -> None:
    """With a terminal for standard error, and no format set, lines are words in colours."""
    terminal, side = pty.openpty()
    reader = Reader(terminal)
    with logging_to(Path(os.ttyname(side)), tmp_path, key) as gateway:
        os.close(side)
        with gateway.connect() as client:
            assert client.ask(proxy_request(key=key)).status == 200
        text = until(lambda: reader.read.decode() if b"method" in reader.read else None, "the request's line")
    assert "\x1b[" in text
    assert "gateway_ready" in text
    assert '{"timestamp"' not in text
    reader.close()
