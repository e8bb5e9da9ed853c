"""Origins that are not reached, or do not answer in time: who may try again is told by the status."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.certificate import make_certificate
from tests.harness.messages import http_response, message, proxy_request
from tests.harness.origin import ScriptedOrigin
from tests.harness.policy import policy_text
from tests.harness.ports import LOOPBACK, refused_port
from tests.harness.scene import JSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import OriginConnection
    from tests.harness.policy import GatewayKey
    from tests.harness.scene import Scene

CONNECT_SECONDS: Final = 0.4
PHASE_SECONDS: Final = 0.8
SLACK_SECONDS: Final = 1.5
BACKLOG_FILLERS: Final = 4
ANY_HOST: Final = {"allowed_url_patterns": ["*.fal.run/**"]}


@pytest.fixture
def unreachable() -> Iterator[int]:
    """Return a port that answers no SYN: its listener's queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=0))
        for _ in range(BACKLOG_FILLERS):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003 (the standard library's signature)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a file with a key and a certificate for 127.0.0.1 that nobody signed but itself."""
    return make_certificate(tmp_path)


@pytest.fixture
def secure_origin(certificate: Path) -> Iterator[ScriptedOrigin]:
    """Return an origin that speaks TLS with that certificate and answers 200."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(http_response())

    with ScriptedOrigin(script, tls=context) as origin:
        yield origin


@pytest.fixture
def astray(start_gateway: StartGateway, key: GatewayKey, *, unreachable: int, secure_origin: ScriptedOrigin) -> Gateway:
    """Return a gateway whose origins are refused, unreachable, without a name, and not to be trusted."""
    places = {
        "refused": f"http://{LOOPBACK}:{refused_port()}",
        "unreachable": f"http://{LOOPBACK}:{unreachable}",
        "unknown": "http://nowhere.onion",  # RFC 7686: never looked up, so no question leaves this machine
        "untrusted": f"https://{LOOPBACK}:{secure_origin.port}",
    }
    overrides = ",".join(f"{name}.fal.run={place}" for name, place in places.items())
    policy = policy_text(key, targets=ANY_HOST)
    return start_gateway(overrides, policy=policy, FALGW_CONNECT_TIMEOUT=str(CONNECT_SECONDS))


def test_an_origin_that_is_not_reached_is_502_or_504(
    astray: Gateway, key: GatewayKey, *, secure_origin: ScriptedOrigin
) -> None:
    """Nothing was sent, so the clients may try again: 502, and 504 after the connect timeout, paid or not."""
    expected = {
        "refused": (502, "connection_refused"),
        "unreachable": (504, "connection_timeout"),
        "unknown": (502, "dns_error"),
        "untrusted": (502, "tls_error"),
    }
    for body in (b"{}", b'{"x":"' + b"x" * 200_000 + b'"}'):
        for name, (status, error_type) in expected.items():
            began = time.monotonic()
            with astray.connect() as client:
                answer = client.ask(proxy_request(f"https://{name}.fal.run/fal-ai/flux", key=key, body=body))
            assert (answer.status, answer.json()["error_type"]) == (status, error_type), name
            assert answer.field("x-fal-error-type") == error_type
            assert time.monotonic() - began < CONNECT_SECONDS + SLACK_SECONDS
            event = astray.wait_for_event("exchange", lambda e, a=answer: e["request_id"] == a.json()["request_id"])  # type: ignore[misc]
            assert (event["status"], event["outcome"], event["error_type"]) == (status, "origin_failed", error_type)
    assert secure_origin.requests == []
    failures = astray.metrics()
    assert all(failures.value("upstream_failures_total", error_type=kind) == 2 for _, kind in expected.values())


def test_a_certificate_of_the_operators_own_bundle_is_trusted(
    start_gateway: StartGateway, key: GatewayKey, *, secure_origin: ScriptedOrigin, certificate: Path
) -> None:
    """The same origin answers where FALGW_CA_FILE holds its certificate: it was trust that was missing."""
    gateway = start_gateway(secure_origin, FALGW_CA_FILE=str(certificate))
    with gateway.connect() as client:
        assert client.ask(proxy_request(key=key)).status == 200
    assert len(secure_origin.executions) == 1


# -- no answer in time ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hasty_scene(build_scene: Callable[..., Scene]) -> Scene:
    """Return a scene whose gateway waits less than a second in each phase."""
    return build_scene(FALGW_FIRST_BYTE_TIMEOUT=str(PHASE_SECONDS), FALGW_IDLE_TIMEOUT=str(PHASE_SECONDS))


@pytest.fixture
def hasty(hasty_scene: Scene) -> Scene:
    """Return that scene with new books."""
    return hasty_scene.open_books()


@pytest.mark.parametrize(("free", "status"), [(False, 500), (True, 504)], ids=["paid", "free"])
def test_no_first_byte_in_time(hasty: Scene, *, free: bool, status: int) -> None:
    """An origin that says nothing: 500 where it may have been paid for, 504 where it is free; it is not asked again."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        began = time.monotonic()
        connection.wait_for_leaving()
        hasty.tell(time.monotonic() - began)

    hasty.play(script)
    answer = hasty.ask(hasty.poll() if free else hasty.request())
    assert (answer.status, answer.json()["error_type"]) == (status, "origin_timeout")
    assert PHASE_SECONDS - 0.1 < hasty.told() < PHASE_SECONDS + SLACK_SECONDS
    (event,) = hasty.settled()
    assert (event["outcome"], event["error_type"], event["first_byte_ms"]) == ("origin_failed", "origin_timeout", None)
    assert len(hasty.origin.executions) == 1


def test_the_first_byte_is_waited_for_from_the_whole_request_on(hasty: Scene) -> None:
    """A caller who takes longer than the bound for its content loses nothing of the origin's time."""
    body = b"x" * 100_000

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.socket.settimeout(PHASE_SECONDS * 0.6)
        with pytest.raises(TimeoutError):  # think, and see that the gateway stays
            connection.reader.fill()
        connection.send(http_response())

    hasty.play(script)
    with hasty.connect() as client:
        client.send(hasty.head(("Content-Length", str(len(body)))) + body[:50_000])
        hasty.origin.wait_for_requests(1)
        client.socket.settimeout(PHASE_SECONDS * 2)
        with pytest.raises(TimeoutError):  # longer than any phase, and nothing is said
            client.reader.fill()
        client.send(body[50_000:])
        client.socket.settimeout(20)
        assert client.read_response().status == 200
    hasty.settled()


def test_silence_within_a_held_answer_is_a_clean_500(hasty: Scene) -> None:
    """A paid JSON answer that stops half-way was held until whole, so its loss is told in words, and not by a cut."""
    hasty.play(half_and_silence(hasty, JSON_TYPE))
    answer = hasty.ask(hasty.request())
    assert (answer.status, answer.json()["error_type"]) == (500, "origin_timeout")
    assert hasty.told() < PHASE_SECONDS + SLACK_SECONDS
    (event,) = hasty.settled()
    assert (event["status"], event["outcome"], event["error_type"]) == (500, "origin_failed", "origin_timeout")
    assert event["units"] == "1.5"


def test_silence_within_any_other_answer_is_a_cut(hasty: Scene) -> None:
    """An answer that passes as it comes and stops half-way ends by a reset."""
    hasty.play(half_and_silence(hasty, ("Content-Type", "image/png")))
    with hasty.connect() as client:
        client.send(hasty.request())
        assert client.read_head().status == 200
        assert b"".join(client.reader.pieces(4)) == b"half"
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)
    assert hasty.told() < PHASE_SECONDS + SLACK_SECONDS
    (event,) = hasty.settled()
    assert (event["status"], event["outcome"], event["error_type"]) == (200, "cut", "origin_timeout")


def half_and_silence(scene: Scene, content_type: tuple[str, str]) -> Callable[[OriginConnection], None]:
    """Return a script that sends the half of an answer, and reports after how many seconds it was left."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        fields = [content_type, ("Content-Length", "8"), ("x-fal-billable-units", "1.5")]
        connection.send(message("HTTP/1.1 200 OK", fields, b"half"))
        began = time.monotonic()
        connection.wait_for_leaving()
        scene.tell(time.monotonic() - began)

    return script


def test_an_origin_that_takes_no_content_is_a_timeout(hasty: Scene) -> None:
    """An origin that stops reading a large request is idle too; what it has seen of it ends by a reset."""
    answered = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_head()
        assert answered.wait(20)
        hasty.tell(connection.wait_for_leaving())

    hasty.play(script)
    body = b"x" * 40_000_000
    with hasty.connect() as client:
        client.send(hasty.head(("Content-Length", str(len(body)))))
        client.send(body)  # what the origin will never see is swallowed, so that the answer can be read
        answer = client.read_response()
    answered.set()
    assert (answer.status, answer.json()["error_type"]) == (500, "origin_timeout")
    assert answer.field("connection") == "close"
    hasty.settled()
    assert hasty.told() == "reset"
    assert hasty.origin.executions == []
