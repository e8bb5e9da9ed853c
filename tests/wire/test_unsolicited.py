"""Bytes on a pooled connection that no request asked for: it is never used again, and no caller sees them."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.certificate import make_certificate
from tests.harness.messages import http_response
from tests.harness.origin import answering, overrides_to
from tests.harness.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.origin import OriginConnection, Received
    from tests.harness.scene import Scene

STOLEN: Final = b'{"stolen":true}'
UNSOLICITED: Final = {
    "answer": http_response(STOLEN),
    "interim and answer": b"HTTP/1.1 103 Early Hints\r\n\r\n" + http_response(STOLEN),
    "line end": b"\r\n",
    "last chunk": b"0\r\n\r\n",
    "content": b"x" * 100,
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
}
VERSIONS: Final = {"tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}
TURNS: Final = 3
IN_CHUNKS: Final = 2  # the second answer
SURELY_LATER_MS: Final = 50
KERNEL_HOLDS_SECONDS: Final = 0.2  # at the most (TCP_CORK in tcp(7))
KERNEL_TURNS: Final = 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a certificate for the origin."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def scenes(build_scene: Callable[..., Scene], certificate: Path) -> dict[str, Scene]:
    """Return a scene before an origin without TLS, and one for each version of it."""
    found = {"plain": build_scene()}
    for name, version in VERSIONS.items():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.minimum_version = context.maximum_version = version
        found[name] = build_scene(tls=context, FALGW_CA_FILE=str(certificate))
    return found


@pytest.fixture(params=["plain", *VERSIONS])
def scene(request: pytest.FixtureRequest, scenes: dict[str, Scene]) -> Scene:
    """Return the scene of one transport, with new books."""
    return scenes[request.param].open_books()


def echo(received: Received, *, in_chunks: bool = False) -> bytes:
    """Return an answer with the request's own content."""
    return http_response(bytes(received.body), in_chunks=in_chunks)


@pytest.mark.parametrize("delay_ms", [0, 2, 50])
@pytest.mark.parametrize("unsolicited", UNSOLICITED.values(), ids=list(UNSOLICITED))
def test_bytes_behind_an_answer_reach_no_caller(scene: Scene, unsolicited: bytes, delay_ms: int) -> None:
    """An origin writes more, some time after its answer: each caller gets its own answer, and is served once.

    The connection is left, unless libcurl reads those bytes with the last chunk of an answer: there it drops them.
    """

    def script(connection: OriginConnection) -> None:
        while (received := connection.read_request()) is not None:
            connection.send(echo(received, in_chunks=len(scene.origin.executions) == IN_CHUNKS))
            time.sleep(delay_ms / 1000)
            connection.send(unsolicited)
            scene.tell("written")

    scene.play(script)
    with scene.connect() as client:
        for turn in range(TURNS):
            own = b'{"turn":%d}' % turn
            answer = client.ask(scene.request(body=own))
            assert (answer.status, answer.body) == (200, own)
            assert scene.told() == "written"
    first, second, third = (request.connection for request in scene.origin.executions)
    assert first != second
    assert second != third or delay_ms < SURELY_LATER_MS
    scene.settled(TURNS)


def test_sound_connections_are_reused(scene: Scene) -> None:
    """All this care does not cost a connection, or a handshake, for each request."""
    scene.play(answering())
    with scene.connect() as client:
        for turn in range(20):
            assert client.ask(scene.poll() if turn % 2 else scene.request()).status == 200
    assert scene.origin.connections == 1
    scene.settled(20)


@pytest.mark.parametrize("size", [0, 1, 4_096, 4_097, 15_000, 16_384, 65_536, 300_000])
def test_no_request_waits_in_the_kernel(scene: Scene, size: int) -> None:
    """On a reused connection its end is held until libcurl has looked once, and by no means until Linux lets it go."""
    scene.play(answering(echo))
    own = b"x" * size
    with scene.connect() as client:
        client.ask(scene.request(body=b"{}"))
        begun = time.monotonic()
        for _ in range(KERNEL_TURNS):
            assert client.ask(scene.request(body=own)).body == own
            assert client.ask(scene.poll()).status == 200
        taken = time.monotonic() - begun
    assert taken < KERNEL_TURNS * KERNEL_HOLDS_SECONDS
    scene.settled(2 * KERNEL_TURNS + 1)


def test_a_late_message_of_tls_costs_a_handshake_and_no_more(
    build_scene: Callable[..., Scene], certificate: Path
) -> None:
    """A session ticket, or here a new key, cannot be told from content: a connection more, and then the pool again."""
    server = ["openssl", "s_server", "-accept", f"{LOOPBACK}:0", "-cert", str(certificate), "-tls1_3"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(server, **pipes) as running:  # type: ignore[call-overload]
        try:
            screen = Screen(running)
            port = int(screen.after(b"ACCEPT 127.0.0.1:"))
            scene = build_scene(
                FALGW_CA_FILE=str(certificate), FALGW_ORIGIN_OVERRIDES=overrides_to(port, scheme="https")
            )
            with scene.connect() as client:
                for turn in range(5):
                    client.send(scene.request(body=b'{"turn":%d}' % turn))
                    screen.after(b'{"turn":%d' % turn)
                    screen.type(http_response(b'{"turn":%d}' % turn))
                    assert client.read_response().body == b'{"turn":%d}' % turn
                    if turn == 1:
                        screen.type(b"k\n")
                        screen.after(b"SSL_do_handshake -> ")
            scene.settled(5)
        finally:
            running.kill()
    assert screen.shown.count(b"BEGIN SSL SESSION PARAMETERS") == 2


class Screen:
    """The terminal of `openssl s_server`: a line that is one of its commands is not sent, all else is."""

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        self._server = server
        self._at = 0
        self.shown = b""

    def type(self, data: bytes) -> None:
        """Write to it."""
        assert self._server.stdin is not None
        self._server.stdin.write(data)
        self._server.stdin.flush()

    def after(self, text: bytes) -> bytes:
        """Wait until this is shown behind what was waited for before; return what is behind it, to the line's end."""
        assert self._server.stdout is not None
        while (at := self.shown.find(text, self._at)) < 0:
            read = os.read(self._server.stdout.fileno(), 65_536)
            assert read, self.shown
            self.shown += read
        self._at = at + len(text)
        return self.shown[self._at :].split(b"\n")[0]
