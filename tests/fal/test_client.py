"""The client of fal's API: who it says it is, how far it follows a list, when it asks again, what its errors hold."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.fal.api import client
from gateway.fal.api.client import FalApi, FalApiError, Patience
from gateway.platform.backoff import Backoff
from tests.fal.stand import KEY, QUICK, page
from tests.harness.messages import http_response
from tests.harness.origin import ScriptedOrigin, answering, in_turn
from tests.harness.ports import LOOPBACK, refused_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.emulator import Emulator
    from tests.harness.origin import OriginConnection, StartOrigin

CERTIFICATE: Final = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=origin.test"


def listed(api: FalApi) -> list[dict[str, Any]]:
    """Return a whole list."""
    return list(api.entries("/v1/things", name="things", query=[("endpoint_id", "a/b c")]))


def test_a_question_names_its_key_and_keeps_the_host(
    start_origin: StartOrigin, open_api: Callable[..., FalApi]
) -> None:
    """`Authorization: Key …`, Host api.fal.ai wherever the connection goes, and the query encoded."""
    origin = start_origin(answering(page("things", [{"a": 1}])))
    assert listed(open_api(origin.port)) == [{"a": 1}]
    [request] = origin.requests
    fields = dict(request.head.fields)
    assert request.head.start == b"GET /v1/things?endpoint_id=a%2Fb+c HTTP/1.1"
    assert (fields[b"authorization"], fields[b"host"]) == (f"Key {KEY}".encode(), b"api.fal.ai")
    assert fields[b"user-agent"].startswith(b"fal-gateway/")


def test_a_proxy_of_the_environment_is_not_used(
    start_origin: StartOrigin, open_api: Callable[..., FalApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The admin key does not go to whoever `http_proxy` names."""
    for name in ("http_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{LOOPBACK}:{refused_port()}")
    origin = start_origin(answering(page("things", [])))
    assert listed(open_api(origin.port)) == []


def test_pages_are_followed_to_their_end(fal: Emulator, open_api: Callable[..., FalApi]) -> None:
    """Every cursor leads to the next page, in order."""
    names = [f"maker/model-{number}" for number in range(7)]
    fal.settings(page_size=3, prices={name: {"unit": "images", "usd": "0.5"} for name in names})
    query = [("endpoint_id", name) for name in names]
    found = open_api(fal.port).entries("/v1/models/pricing", name="prices", query=query)
    assert [entry["endpoint_id"] for entry in found] == names
    assert fal.requests_total() == 3


def test_a_list_without_end_is_an_error(start_origin: StartOrigin, open_api: Callable[..., FalApi]) -> None:
    """A cursor that leads in a circle is followed to a bound."""
    origin = start_origin(answering(page("things", [], next_cursor="again")))
    with pytest.raises(FalApiError, match=f"more than {client.PAGES_MOST} pages"):
        listed(open_api(origin.port))
    assert len(origin.requests) == client.PAGES_MOST


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"things": {}}',
        b'{"things": [], "has_more": true}',
        b'{"things": [{"a": NaN}]}',
        b'{"things": [' + b"9" * 5000 + b"]}",
        b"[" * 100_000,
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(
    content: bytes, start_origin: StartOrigin, open_api: Callable[..., FalApi]
) -> None:
    """No part of a list is taken for the whole of it."""
    origin = start_origin(answering(http_response(content)))
    with pytest.raises(FalApiError):
        listed(open_api(origin.port))


def test_passing_trouble_is_waited_out(start_origin: StartOrigin, open_api: Callable[..., FalApi]) -> None:
    """429, a 5xx and a connection that ends are asked again; then the answer counts."""
    origin = start_origin(in_turn(http_response(status=503), None, page("things", [{"a": 1}])))
    assert listed(open_api(origin.port)) == [{"a": 1}]
    origin = start_origin(in_turn(http_response(status=429), page("things", [{"a": 2}])))
    assert listed(open_api(origin.port)) == [{"a": 2}]


def test_retry_after_is_waited_for(start_origin: StartOrigin, open_api: Callable[..., FalApi]) -> None:
    """What fal asks for is a wait's least, as far as the longest wait."""
    refusal = http_response(b"{}", 429, fields=[("Retry-After", "1")])
    origin = start_origin(in_turn(refusal, page("things", [])))
    began = time.monotonic()
    listed(open_api(origin.port, patience=Patience(backoff=Backoff(0.001, 30))))
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("status", "asked"), [(503, QUICK.attempts), (429, QUICK.attempts), (401, 1), (404, 1), (302, 1)]
)
def test_a_refusal_is_an_error_with_its_status(
    status: int, asked: int, start_origin: StartOrigin, open_api: Callable[..., FalApi]
) -> None:
    """Trouble that stays ends after the last attempt, any other status at once; a redirect leads nowhere."""
    where = [("Location", f"http://{LOOPBACK}:{refused_port()}/")]
    origin = start_origin(answering(http_response(b'{"detail": "no"}', status, fields=where)))
    with pytest.raises(FalApiError, match=f"answered {status}: no") as caught:
        listed(open_api(origin.port))
    assert (caught.value.status, len(origin.requests)) == (status, asked)


def test_no_error_holds_the_key(start_origin: StartOrigin, open_api: Callable[..., FalApi]) -> None:
    """Not even where fal quotes it, whole or in its halves."""
    quoted = f'{{"detail": "bad key {KEY}, secret {KEY.split(":")[1]}"}}'.encode()
    origin = start_origin(answering(http_response(quoted, 401)))
    with pytest.raises(FalApiError) as refused:
        listed(open_api(origin.port))
    with pytest.raises(FalApiError, match="not reached: no connection") as unreached:
        listed(open_api(refused_port()))
    for error in (refused, unreached):
        assert "canary" not in str(error.value) + repr(error.value) + repr(error.value.__cause__)


def test_an_answer_is_bounded_in_size_and_time(start_origin: StartOrigin, open_api: Callable[..., FalApi]) -> None:
    """Neither an endless answer nor a silent one holds the thread."""

    def endless(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.send(b" " * 65536)

    with pytest.raises(FalApiError, match="longer than is taken"):
        listed(open_api(start_origin(endless).port, patience=Patience(attempts=1)))

    def silent(connection: OriginConnection) -> None:
        connection.read_request()
        connection.wait_for_leaving()

    with pytest.raises(FalApiError, match="in time"):
        listed(open_api(start_origin(silent).port, patience=Patience(attempts=1, answer_seconds=0.2)))


def test_stop_ends_a_question_that_is_under_way(start_origin: StartOrigin, open_api: Callable[..., FalApi]) -> None:
    """From another thread, while fal is silent; whatever is asked later fails at once."""

    def silent(connection: OriginConnection) -> None:
        connection.read_request()
        connection.wait_for_leaving()

    origin = start_origin(silent)
    api = open_api(origin.port, patience=Patience(answer_seconds=100))
    faults: list[FalApiError] = []

    def ask() -> None:
        try:
            listed(api)
        except FalApiError as fault:
            faults.append(fault)

    thread = threading.Thread(target=ask)
    thread.start()
    origin.wait_for_requests(1)
    api.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert "stopped" in str(faults[0])
    with pytest.raises(FalApiError, match="stopped"):
        listed(api)


def test_tls_trusts_the_bundle_and_nothing_else(tmp_path: Path, open_api: Callable[..., FalApi]) -> None:
    """A certificate that nobody vouches for is no fal; with the CA file, it is."""
    key, made = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ["-addext", f"subjectAltName=IP:{LOOPBACK}", "-keyout", str(key), "-out", str(made)]
    subprocess.run(["openssl", *CERTIFICATE.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    with ScriptedOrigin(answering(page("things", [])), tls=context) as origin:
        with pytest.raises(FalApiError, match="no trusted TLS connection"):
            listed(open_api(origin.port, scheme="https"))
        assert listed(open_api(origin.port, scheme="https", ca_file=str(made))) == []
