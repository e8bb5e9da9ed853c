"""Large bodies and slow readers cost no memory: the growth of all processes together, over real sockets."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Self

import pytest

from tests.harness.client import RawClient
from tests.harness.messages import http_response, message, proxy_head, proxy_request
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import OriginConnection, Received, StartOrigin
    from tests.harness.policy import GatewayKey

MIB: Final = 1 << 20
GROWTH_BYTES: Final = 16 * MIB
PIECE: Final = bytes(range(256)) * 4096
UPLOAD_BYTES: Final = 50 * len(PIECE)
UPLOADS: Final = 8
READERS: Final = 100
ANSWER_BYTES: Final = 20_000_000
ROUNDS: Final = 4


class Watermark:
    """The highest resident memory of a gateway while a block runs."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.base = self.peak = gateway.rss()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, self._gateway.rss())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, self._gateway.rss())

    @property
    def growth(self) -> int:
        """Bytes that were added at the worst moment."""
        return self.peak - self.base


def digest_answer(request: Received) -> bytes:
    """Answer with what was received."""
    return http_response(f'{{"sha256":"{request.sha256}","size":{request.size}}}'.encode())


def answer_digests(connection: OriginConnection) -> None:
    """Answer each whole request with its digest."""
    while (request := connection.read_request()) is not None:
        connection.send(digest_answer(request))


def warm_up(gateway: Gateway, key: GatewayKey) -> None:
    """Let every pool and cache of the path come into being, so that the growth measured is the bodies' own."""
    with gateway.connect() as client:
        assert client.ask(proxy_request(key=key, body=b'"' + b"x" * 2 * MIB + b'"')).status == 200


def upload(gateway: Gateway, key: GatewayKey, number: int) -> tuple[str, str]:
    """Send one large body; return (digest sent, digest that the origin received)."""
    digest = hashlib.sha256()
    with gateway.connect() as client:
        client.send(proxy_head(key=key, fields=[("Content-Length", str(UPLOAD_BYTES))]))
        for at in range(UPLOAD_BYTES // len(PIECE)):
            piece = bytes((number + at,)) + PIECE[1:]
            digest.update(piece)
            client.send(piece)
        response = client.read_response()
    assert response.status == 200, response
    return digest.hexdigest(), response.json()["sha256"]


@pytest.mark.timeout(180)
def test_large_uploads_at_once_arrive_whole_and_cost_no_memory(
    start_gateway: StartGateway, start_origin: StartOrigin, key: GatewayKey
) -> None:
    """Eight uploads of 50 MB at once: every digest is right, and all processes grow by at most 16 MB."""
    gateway = start_gateway(start_origin(answer_digests))
    warm_up(gateway, key)
    with Watermark(gateway) as memory, ThreadPoolExecutor(UPLOADS) as pool:
        digests = list(pool.map(lambda number: upload(gateway, key, number), range(UPLOADS)))
    assert all(sent == received for sent, received in digests)
    assert len({sent for sent, _ in digests}) == UPLOADS
    assert memory.growth <= GROWTH_BYTES


@pytest.mark.timeout(180)
def test_slow_readers_hold_the_origin_and_cost_no_memory(
    start_gateway: StartGateway, start_origin: StartOrigin, key: GatewayKey
) -> None:
    """A hundred readers at 1 KB/s of 20 MB answers: the origins are held, and all processes grow by at most 16 MB."""
    written: dict[int, int] = {}
    pace = threading.Event()

    def stream(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            fields = [("Content-Type", "image/png"), ("Content-Length", str(ANSWER_BYTES))]
            connection.send(message("HTTP/1.1 200 OK", fields))
            if request.size > MIB:  # the warm-up
                connection.send(bytes(ANSWER_BYTES))
                continue
            for _ in range(ANSWER_BYTES // 100_000):
                connection.send(bytes(100_000))
                written[connection.number] = written.get(connection.number, 0) + 100_000

    gateway = start_gateway(start_origin(stream))
    warm_up(gateway, key)
    readers = [RawClient(gateway.port, receive_buffer_bytes=4096) for _ in range(READERS)]
    with Watermark(gateway) as memory:
        for reader in readers:
            reader.send(proxy_request(key=key))
        until(lambda: len(written) == READERS, "every origin connection to begin its answer", timeout_seconds=30)
        for _ in range(ROUNDS):
            for reader in readers:
                assert len(reader.socket.recv(1000)) > 0
            pace.wait(1.0)  # the rate is what is tested: 1,000 bytes a second
    held = [sent for sent in written.values() if sent < ANSWER_BYTES]
    for reader in readers:
        reader.reset()
    assert len(held) == READERS, "the origin was read to the end for somebody who does not read"
    assert memory.growth <= GROWTH_BYTES


@pytest.mark.timeout(180)
def test_a_gibibyte_in_chunks_within_the_limit_passes_with_flat_memory(
    start_gateway: StartGateway, start_origin: StartOrigin, key: GatewayKey
) -> None:
    """A chunked upload of 1 GiB, exactly the limit, arrives whole, and all processes grow by at most 16 MB."""
    gateway = start_gateway(start_origin(answer_digests))
    warm_up(gateway, key)
    digest = hashlib.sha256()
    with Watermark(gateway) as memory, gateway.connect() as client:
        client.send(proxy_head(key=key, fields=[("Transfer-Encoding", "chunked")]))
        for _ in range(1024 * MIB // len(PIECE)):
            digest.update(PIECE)
            client.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
        client.send(b"0\r\n\r\n")
        response = client.read_response()
    assert response.status == 200
    assert response.json() == {"sha256": digest.hexdigest(), "size": 1024 * MIB}
    assert memory.growth <= GROWTH_BYTES


@pytest.mark.timeout(180)
def test_chunks_beyond_the_limit_are_refused_with_413(
    start_gateway: StartGateway, start_origin: StartOrigin, key: GatewayKey
) -> None:
    """Content without a declared length is counted: beyond the limit the caller gets 413, the origin never a whole."""
    origin = start_origin(answer_digests)
    gateway = start_gateway(origin, FALGW_MAX_BODY_BYTES=str(4 * MIB))
    with gateway.connect() as client:
        client.send(proxy_head(key=key, fields=[("Transfer-Encoding", "chunked")]))
        for _ in range(5):
            client.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
        response = client.read_response()
    assert (response.status, response.json()["error_type"]) == (413, "content_too_large")
    until(lambda: gateway.events("exchange"), "the exchange's event")
    assert origin.executions == []
