"""Behind real proxies: what docs/proxies.md says of them, with the configuration that stands there."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
from typing import TYPE_CHECKING, Final

import pytest

from tests.e2e import proxies
from tests.e2e.stream import EVENTS, Reader, event, stream_request
from tests.harness.client import TIMEOUT_SECONDS, RawClient
from tests.harness.messages import proxy_head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.proxies import Proxy
    from tests.e2e.stream import PacedStream
    from tests.harness.client import Response
    from tests.harness.emulator import Emulator
    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.policy import GatewayKey

    OpenProxy = Callable[[Path, int], Proxy]

UPLOAD: Final = bytes(range(256)) * 234_375  # 60 MB
HELD_SECONDS: Final = 1.0


def nginx_as_documented(folder: Path, port: int) -> Proxy:
    """Start nginx as the page has it."""
    return proxies.nginx_as_documented(folder, port)


def nginx_as_installed(folder: Path, port: int) -> Proxy:
    """Start nginx with nothing set."""
    return proxies.nginx_as_installed(folder, port)


def traefik_as_documented(folder: Path, port: int) -> Proxy:
    """Start Traefik as the page has it."""
    return proxies.traefik(folder, port, as_documented=True)


def traefik_as_installed(folder: Path, port: int) -> Proxy:
    """Start Traefik with nothing set."""
    return proxies.traefik(folder, port, as_documented=False)


DOCUMENTED: Final = (nginx_as_documented, traefik_as_documented)
INSTALLED: Final = (nginx_as_installed, traefik_as_installed)


def upload(port: int, key: GatewayKey) -> Response:
    """Send 60 MB as they are, and return the answer; what refuses them may not have read them all."""
    with RawClient(port, timeout_seconds=60) as client:
        client.send(proxy_head(key=key, fields=[("Content-Length", str(len(UPLOAD)))]))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(UPLOAD)
        return client.read_response()


@pytest.fixture
def streaming(start_gateway: StartGateway, paced: PacedStream) -> Gateway:
    """Return a gateway whose origin sends an event once the one before was read."""
    return start_gateway(paced.origin)


@pytest.mark.parametrize("open_proxy", [*DOCUMENTED, *INSTALLED])
def test_event_streams_pass_piece_by_piece(
    tmp_path: Path, streaming: Gateway, paced: PacedStream, key: GatewayKey, *, open_proxy: OpenProxy
) -> None:
    """Each event is with the caller before the origin has sent the next, also with nothing set in the proxy."""
    with open_proxy(tmp_path, streaming.port) as proxy, Reader(proxy.port, key) as reader:
        assert reader.head.value(b"cache-control") == b"no-cache"
        reader.read_on(paced)


def test_it_is_the_field_of_the_gateway_that_keeps_nginx_from_holding_them(
    tmp_path: Path, streaming: Gateway, paced: PacedStream, key: GatewayKey
) -> None:
    """Told to overlook `X-Accel-Buffering`, nginx as installed gives nothing of a stream before its end."""
    more = "proxy_ignore_headers X-Accel-Buffering;"
    with proxies.nginx_as_installed(tmp_path, streaming.port, more=more) as proxy, RawClient(proxy.port) as client:
        client.send(stream_request(key))
        client.socket.settimeout(HELD_SECONDS)
        with pytest.raises(TimeoutError):
            client.reader.through(event(0))
        paced.release()
        client.socket.settimeout(TIMEOUT_SECONDS)
        client.reader.through(event(EVENTS - 1))


@pytest.mark.parametrize("open_proxy", [*DOCUMENTED, traefik_as_installed])
def test_sixty_megabytes_pass(
    tmp_path: Path, start_gateway: StartGateway, emulator: Emulator, key: GatewayKey, *, open_proxy: OpenProxy
) -> None:
    """What the origin has got is what the caller sent, byte for byte."""
    gateway = start_gateway(emulator)
    with open_proxy(tmp_path, gateway.port) as proxy:
        answer = upload(proxy.port, key)
    assert answer.status == http.client.OK, answer
    assert (answer.json()["sha256"], answer.json()["bytes"]) == (hashlib.sha256(UPLOAD).hexdigest(), len(UPLOAD))


def test_nginx_as_installed_refuses_them(
    tmp_path: Path, start_gateway: StartGateway, emulator: Emulator, key: GatewayKey
) -> None:
    """413, by nginx itself: the gateway has seen nothing of it."""
    gateway = start_gateway(emulator)
    with proxies.nginx_as_installed(tmp_path, gateway.port) as proxy:
        answer = upload(proxy.port, key)
    assert (answer.status, answer.field("x-fal-error-type")) == (http.client.REQUEST_ENTITY_TOO_LARGE, None)
    assert {seen["method"] for seen in gateway.events("exchange")} == {"GET"}
