"""The ops listener, as its own process on a real socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.platform.signals import STOP
from gateway.processes.ops import serve_ops
from gateway.telemetry.metrics.scoreboard import Scoreboard, State

Ask = Callable[..., tuple[http.client.HTTPResponse, bytes]]


@pytest.fixture
def scoreboard() -> Iterator[Scoreboard]:
    """Return a scoreboard for two workers."""
    made = Scoreboard(workers=2)
    yield made
    made.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a listening socket on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def _serve_and_leave(listener: socket.socket, scoreboard: Scoreboard) -> None:
    status = 1
    try:
        serve_ops(listener, scoreboard, spool_bytes=lambda: 0, on_orphaned=lambda _call: None)
        status = 0
    finally:
        os._exit(status)


@pytest.fixture
def ops_pid(scoreboard: Scoreboard, listener: socket.socket) -> Iterator[int]:
    """Run the ops process; it is killed by id if its test has not ended it."""
    pid = os.fork()
    if pid == 0:
        _serve_and_leave(listener, scoreboard)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


@pytest.fixture
def ask(ops_pid: int, listener: socket.socket) -> Ask:
    """Return a function that sends one request and returns the answer's head and content."""
    assert ops_pid

    def send(path: str, method: str = "GET", **fields: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=10)
        connection.request(method, path, headers=fields)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content

    return send


def test_live_while_the_process_answers(ask: Ask) -> None:
    """Liveness says nothing about workers: a restart of this process would not mend them."""
    answer, content = ask("/livez")
    assert (answer.status, json.loads(content)) == (200, {"status": "ok"})
    assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(
    ("supervisor", "worker", "status", "word"),
    [
        (State.READY, State.STARTING, 503, "starting"),
        (State.READY, State.READY, 200, "ready"),
        (State.READY, State.STOPPED, 503, "starting"),
        (State.DRAINING, State.READY, 503, "draining"),
    ],
)
def test_ready_while_requests_are_wanted(  # noqa: PLR0913 - a table with one column for each part of the answer
    scoreboard: Scoreboard, ask: Ask, *, supervisor: State, worker: State, status: int, word: str
) -> None:
    """503 while starting, draining, or with no worker ready; the policy generation and the workers are named."""
    scoreboard.supervisor.state, scoreboard.workers[0].state, scoreboard.workers[0].generation = supervisor, worker, 7
    answer, content = ask("/readyz")
    ready = int(worker is State.READY)
    assert answer.status == status
    assert json.loads(content) == {
        "status": word,
        "policy_generation": 7 * ready,
        "workers": {"ready": ready, "total": 2},
    }


def test_metrics_are_scraped(scoreboard: Scoreboard, ask: Ask) -> None:
    """The page parses, and shows what other processes wrote a moment ago."""
    scoreboard.workers[1].state = State.READY
    answer, content = ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    values: dict[Any, float] = {
        (s.name, *s.labels.values()): s.value
        for family in text_string_to_metric_families(content.decode())
        for s in family.samples
    }
    assert values["fal_gateway_workers", "ready"] == 1


def test_open_metrics_on_request(ask: Ask) -> None:
    """The Accept field decides, and an odd one is no error."""
    assert ask("/metrics", Accept="application/openmetrics-text")[1].endswith(b"# EOF\n")
    assert ask("/metrics", Accept="application/openmetrics-text;version=x")[0].status == 200


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/nothing"])
def test_head_is_get_without_content(ask: Ask, path: str) -> None:
    """HEAD has the status and the type of GET, and no content."""
    (head, content), (whole, _) = ask(path, "HEAD"), ask(path)
    assert content == b""
    assert (head.status, head.headers["Content-Type"]) == (whole.status, whole.headers["Content-Type"])


@pytest.mark.parametrize("path", ["/", "/metrics/", "/livez/x", "/api/fal/proxy", "/debug", "//livez"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_there_is_nothing_else(ask: Ask, path: str, method: str) -> None:
    """404, as JSON, for every other path and any method; nothing of the data path is here."""
    answer, content = ask(path, method)
    assert (answer.status, json.loads(content)) == (404, {"status": "not found"})


def test_other_methods_are_refused(ask: Ask) -> None:
    """The three pages are read-only, and say nothing of the software."""
    answer, content = ask("/livez", "DELETE")
    assert (answer.status, json.loads(content)) == (405, {"status": "method not allowed"})
    assert answer.headers["Server"] is None


def test_the_supervisor_ends_it(ask: Ask, ops_pid: int) -> None:
    """It serves until the signal of the supervisor's own comes, and ends with 0."""
    assert ask("/livez")[0].status == 200
    os.kill(ops_pid, STOP)
    assert os.waitstatus_to_exitcode(os.waitpid(ops_pid, 0)[1]) == 0


def test_an_open_connection_does_not_keep_it(ask: Ask, ops_pid: int, listener: socket.socket) -> None:
    """A scraper's kept connection is closed at the end, not waited for."""
    ask("/livez")
    with socket.create_connection(listener.getsockname(), timeout=10) as kept:
        kept.sendall(b"GET /livez HTTP/1.1\r\nHost: ops\r\n\r\n")
        assert kept.recv(1024).startswith(b"HTTP/1.1 200")
        os.kill(ops_pid, STOP)
        assert os.waitstatus_to_exitcode(os.waitpid(ops_pid, 0)[1]) == 0
