"""What the other wire tests rely on: the harness itself tells whole from cut, counts truly, and waits only so long."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.harness.client import TIMEOUT_SECONDS, RawClient
from tests.harness.fault_proxy import ANSWERS_BEFORE_FLAP, FaultProxy
from tests.harness.messages import http_response, message, proxy_request
from tests.harness.origin import ScriptedOrigin, StartOrigin
from tests.harness.ports import LOOPBACK, ReservedPort, refused_port
from tests.harness.redis import RedisServer
from tests.harness.waiting import until
from tests.harness.wire import Malformed, Truncated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.origin import OriginConnection

LONG = b"x" * 200_000


def sending(data: bytes, *, cut: str = "close") -> Callable[[OriginConnection], None]:
    """Return a script that reads one request, sends these bytes, and ends the connection by `close` or `reset`."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(data)
        getattr(connection, cut)()

    return script


@pytest.mark.parametrize("in_chunks", [False, True])
def test_whole_answers_are_read_whole_on_one_connection(start_origin: StartOrigin, in_chunks: bool) -> None:  # noqa: FBT001
    """Answers framed by length or chunks come back whole, one after the other, on one connection."""

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(http_response(LONG, in_chunks=in_chunks))

    origin = start_origin(script)
    with RawClient(origin.port) as client:
        answers = [client.ask(proxy_request()) for _ in range(2)]
    assert [(answer.status, answer.body) for answer in answers] == [(200, LONG)] * 2
    assert origin.connections == 1


@pytest.mark.parametrize("cut", ["close", "reset"])
@pytest.mark.parametrize(
    "data",
    [
        http_response(LONG)[:-1],
        http_response(LONG, in_chunks=True)[:-1],
        http_response(LONG, in_chunks=True)[:-5],
        http_response()[:20],
        b"",
    ],
    ids=["length", "last-newline", "last-chunk", "head", "nothing"],
)
def test_a_cut_answer_is_never_taken_for_a_whole_one(start_origin: StartOrigin, cut: str, data: bytes) -> None:
    """An answer that ends one byte early, by FIN or by RST, raises Truncated."""
    origin = start_origin(sending(data, cut=cut))
    with RawClient(origin.port) as client, pytest.raises(Truncated):
        client.ask(proxy_request())


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        message("HTTP/1.1 200 OK", [("Content-Length", "2"), ("Content-Length", "2")], b"{}"),
        message("HTTP/1.1 200 OK", [("Content-Length", "2"), ("Transfer-Encoding", "chunked")], b"{}"),
        message("HTTP/1.1 200 OK", [("Transfer-Encoding", "chunked")], b"2\r\n{}x\r\n0\r\n\r\n"),
        message("HTTP/1.1 200 OK", [("Bad name", "1"), ("Content-Length", "0")]),
    ],
)
def test_an_answer_that_breaks_the_rules_is_named_so(start_origin: StartOrigin, data: bytes) -> None:
    """What HTTP/1.1 does not allow raises Malformed, so that no test passes on a lenient reading."""
    origin = start_origin(sending(data))
    with RawClient(origin.port) as client, pytest.raises(Malformed):
        client.ask(proxy_request())


def test_interim_answers_are_kept_apart(start_origin: StartOrigin) -> None:
    """A 100 before the final answer is reported as interim, not as the answer."""
    origin = start_origin(sending(b"HTTP/1.1 100 Continue\r\n\r\n" + http_response(b"{}")))
    with RawClient(origin.port) as client:
        answer = client.ask(proxy_request())
    assert (answer.status, answer.interim, answer.json()) == (200, (100,), {})


def test_only_a_whole_request_counts_as_executed(start_origin: StartOrigin) -> None:
    """A request whose body was cut is among the requests of the origin, not among its executions."""
    origin = start_origin()
    with RawClient(origin.port) as broken:
        broken.send(proxy_request(body=LONG)[:-1])
        origin.wait_for_requests(1)
        broken.reset()
    with RawClient(origin.port) as client:
        client.ask(proxy_request(body=LONG, in_chunks=True))
    assert [request.whole for request in origin.requests] == [False, True]
    assert [request.size for request in origin.executions] == [len(LONG)]


def test_an_assertion_in_a_script_fails_the_test() -> None:
    """What goes wrong in an origin's script is raised when the origin is closed."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        raise AssertionError("seen by the test")

    origin = ScriptedOrigin(script)
    with RawClient(origin.port) as client, pytest.raises(Truncated):
        client.ask(proxy_request())
    with pytest.raises(AssertionError, match="seen by the test"):
        origin.close()


def test_a_reserved_port_is_given_to_one_only() -> None:
    """No two reservations that are held at once have the same port; a released one refuses connections."""
    held = [ReservedPort() for _ in range(50)]
    assert len({port.number for port in held}) == len(held)
    for port in held:
        port.release()
    with pytest.raises(ConnectionRefusedError):
        RawClient(refused_port())


def test_waiting_ends_with_the_name_of_what_was_waited_for() -> None:
    """A condition that never holds fails after its time, and says what was missing."""
    with pytest.raises(AssertionError, match="the moon"):
        until(lambda: None, "the moon", timeout_seconds=0.05)


def test_a_frozen_proxy_delivers_later_what_it_was_given(start_origin: StartOrigin) -> None:
    """Nothing passes while it is frozen, and nothing is lost by it."""
    origin = start_origin()
    with FaultProxy(origin.port) as proxy, RawClient(proxy.port) as client:
        assert client.ask(proxy_request()).status == 200
        proxy.mode = "frozen"
        client.send(proxy_request())
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.read_response()
        client.socket.settimeout(TIMEOUT_SECONDS)
        proxy.mode = "pass"
        assert client.read_response().status == 200
        assert len(origin.executions) == 2


def ask_until_broken(client: socket.socket) -> None:
    """Ask for one answer more than a flapping proxy lets through."""
    for _ in range(ANSWERS_BEFORE_FLAP + 1):
        client.sendall(proxy_request())
        assert client.recv(4096)


def test_a_flapping_proxy_resets_and_ends_nothing_in_order(start_origin: StartOrigin) -> None:
    """A part of an answer that only the end of its connection would make whole must not look whole."""

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(b"HTTP/1.1 200 OK\r\n\r\n")

    origin = start_origin(script)
    with FaultProxy(origin.port) as proxy:
        proxy.mode = "flapping"
        for _ in range(20):
            with (
                socket.create_connection((LOOPBACK, proxy.port), TIMEOUT_SECONDS) as client,
                pytest.raises(ConnectionResetError),
            ):
                ask_until_broken(client)


def test_a_proxy_that_refuses_resets_what_is_open(start_origin: StartOrigin) -> None:
    """As a machine does that was switched off, and is on again."""
    origin = start_origin(sending(b"HTTP/1.1 200 OK\r\n\r\n", cut="wait_for_leaving"))
    with FaultProxy(origin.port) as proxy, socket.create_connection((LOOPBACK, proxy.port), TIMEOUT_SECONDS) as client:
        client.sendall(proxy_request())
        assert client.recv(4096)
        proxy.mode = "refuse"
        with pytest.raises(ConnectionResetError):
            client.recv(4096)


def test_a_proxy_outlives_its_target(tmp_path: Path) -> None:
    """Whoever comes while the target (a unix socket) does not run is cut off; once it runs, all is well."""
    target = tmp_path / "target"
    with FaultProxy(target) as proxy:
        with RawClient(proxy.port) as client, pytest.raises(Truncated):
            client.ask(proxy_request())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(target))
            listener.listen()
            with RawClient(proxy.port) as client:
                client.send(b"any")
                with listener.accept()[0] as accepted:
                    assert accepted.recv(3) == b"any"


def test_redis_starts_from_a_snapshot(tmp_path: Path) -> None:
    """A server that is started again knows nothing, or what a snapshot says."""
    with RedisServer(tmp_path / "redis") as server:
        server.run("SET", "a", "1")
        snapshot = server.snapshot()
        for known, expected in ((None, None), (snapshot, b"1"), (None, None)):
            server.kill()
            server.start(snapshot=known)
            assert server.run("GET", "a") == expected
