"""Rules of the faults, each seen from the other end of the socket."""

from __future__ import annotations

import gzip
import json
import time
import zlib

import pytest

from gateway.emulator.answers import PATTERN
from tests.emulator.stand import AUTHORIZED, Stand
from tests.harness.client import RawClient
from tests.harness.wire import Truncated


@pytest.mark.parametrize(
    ("status", "executed"),
    [(401, 0), (403, 0), (404, 0), (422, 1), (429, 0), (500, 1), (502, 1), (503, 0), (504, 1)],
)
def test_a_status_comes_with_its_body(fal: Stand, status: int, executed: int) -> None:
    """Any status can be asked for: with a detail and 0 units, and executed unless it is a refusal."""
    answer = fal.run(f"status={status}")
    assert (answer.status, answer.field("x-fal-billable-units")) == (status, "0")
    assert answer.json()["detail"]
    assert len(fal.executions()) == executed


def test_a_refusal_for_load_says_so(fal: Stand) -> None:
    """A 429 carries `x-fal-needs-retry: 1`."""
    assert fal.run("status=429").field("x-fal-needs-retry") == "1"


def test_a_path_can_ask_for_faults(fal: Stand) -> None:
    """Where a client sends no fields of its own, the endpoint's path asks, and is recorded without."""
    answer = fal.ask("fal.run", "/emulate/status=500,field=x-a:b/fal-ai/flux/dev", content={})
    assert (answer.status, answer.field("x-a")) == (500, "b")
    assert fal.executions()[0]["endpoint"] == "fal-ai/flux/dev"


def test_a_host_can_be_set_to_fail(fal: Stand) -> None:
    """For requests that nobody can mark, a setting holds for a whole host, and only for that one."""
    fal.control("settings", {"faults": {"api.fal.ai": "status=503"}})
    assert fal.ask("api.fal.ai", "/v1/models/pricing?endpoint_id=a/b", method="GET").status == 503
    assert fal.run().status == 200


def test_a_misspelt_fault_is_400(fal: Stand) -> None:
    """A fault that is not known is an error that names it, and executes nothing."""
    answer = fal.run("statsu=500")
    assert answer.status == 400
    assert "statsu" in answer.json()["detail"]
    assert fal.executions() == []


def test_an_answer_can_be_late(fal: Stand) -> None:
    """`delay` holds the head back, counted from the moment that the request is whole."""
    began = time.monotonic()
    fal.run("delay=150")
    assert time.monotonic() - began >= 0.14
    run = fal.outcome("answered")
    assert run["ended_at"] - run["whole_at"] >= 0.14


def test_an_answer_can_be_slow(fal: Stand) -> None:
    """`piece` and `pace` send the content in small pieces with pauses."""
    with fal.running("size=400,piece=100,pace=30") as client:
        head = client.read_head()
        began = time.monotonic()
        assert len(b"".join(client.pieces(head))) == 400
        assert time.monotonic() - began >= 0.08


@pytest.mark.parametrize("size", [0, 1, 2, 100, 1000, 70_000, 3_000_000])
def test_an_answer_has_the_size_asked(fal: Stand, size: int) -> None:
    """`size` gives JSON of exactly so many bytes."""
    answer = fal.run(f"size={size}")
    assert (len(answer.body), answer.field("content-length")) == (size, str(size))
    if size:
        json.loads(answer.body)


def test_the_filling_shows_a_lost_piece(fal: Stand) -> None:
    """The filling of a sized answer repeats with a prime period, so a lost or doubled piece of it would show."""
    filling = fal.run("size=300000").json()["padding"].encode()
    assert len(PATTERN) == 37
    assert filling == (PATTERN * (len(filling) // 37 + 1))[: len(filling)]


def test_a_stalled_answer_waits_for_its_peer(fal: Stand) -> None:
    """`stall` sends the head and so many bytes, then nothing, until the peer leaves; that is noticed."""
    with fal.running("size=1000,stall=10") as client:
        pieces = client.pieces(client.read_head())
        assert len(next(pieces)) == 10
        assert fal.outcome("open")["executed"]
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            next(pieces)
    assert fal.outcome("peer_gone")["executed"]


def take(client: RawClient, received: bytearray) -> None:
    """Read an answer's content into `received`, so that what came before a break is not lost."""
    for piece in client.pieces(client.read_head()):
        received += piece


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(("flag", "how"), [("", "fin"), (",reset", "reset")])
def test_an_answer_can_be_cut(fal: Stand, framing: str, flag: str, how: str) -> None:
    """`cut` breaks off after so many bytes by FIN, or by RST with `reset`; the run is executed and billed."""
    received = bytearray()
    with fal.running(f"size=1000,cut=10,framing={framing}{flag}") as client, pytest.raises(Truncated) as cut:
        take(client, received)
    assert (len(received), cut.value.how) == (10, how)
    assert (fal.outcome("dropped")["executed"], fal.executions()[0]["units"]) == (True, "1")


def test_an_answer_can_be_cut_behind_its_head(fal: Stand) -> None:
    """`cut=0` sends the head and nothing else."""
    with fal.running("cut=0") as client:
        assert client.read_head().status == 200
        assert client.left_by_peer()


def test_a_connection_can_close_before_the_body(fal: Stand) -> None:
    """`close=head` ends the connection as soon as the head has come; nothing is executed."""
    with RawClient(fal.port) as client:
        fields = [AUTHORIZED, ("X-Fal-Emulate", "close=head"), ("Content-Length", "10")]
        client.send(fal.head("fal.run", "/fal-ai/flux/dev", fields=fields))
        assert client.left_by_peer()
    assert not fal.outcome("dropped")["whole"]
    assert fal.executions() == []


def test_a_connection_can_close_within_the_body(fal: Stand) -> None:
    """`close=N` ends the connection after N bytes of the body; nothing is executed."""
    with RawClient(fal.port) as client:
        fields = [AUTHORIZED, ("X-Fal-Emulate", "close=5"), ("Content-Length", "10")]
        client.send(fal.head("fal.run", "/fal-ai/flux/dev", fields=fields) + b"12345")
        assert client.left_by_peer()
    assert fal.outcome("dropped")["bytes"] == 5
    assert fal.executions() == []


@pytest.mark.parametrize(("flag", "how"), [("", "fin"), (",reset", "reset")])
def test_a_connection_can_close_before_the_answer(fal: Stand, flag: str, how: str) -> None:
    """`close=whole` executes the request and ends the connection without a byte of an answer."""
    with fal.running(f"close=whole{flag}") as client, pytest.raises(Truncated) as cut:
        client.read_head()
    assert cut.value.how == how
    assert fal.outcome("dropped")["executed"]
    assert len(fal.executions()) == 1


def test_an_early_answer_comes_before_the_body(fal: Stand) -> None:
    """`early` answers while the body is still coming, reads it on, then closes; nothing is executed."""
    with RawClient(fal.port) as client:
        fields = [AUTHORIZED, ("X-Fal-Emulate", "early=413"), ("Content-Length", "10")]
        client.send(fal.head("fal.run", "/fal-ai/flux/dev", fields=fields) + b"123")
        answer = client.read_response()
        assert (answer.status, answer.field("connection")) == (413, "close")
        client.send(b"4567890")
        assert client.left_by_peer()
    assert fal.executions() == []


def test_an_answer_can_end_with_its_connection(fal: Stand) -> None:
    """`framing=none` has neither length nor chunks; the end of the connection is the end of the content."""
    answer = fal.run("framing=none")
    assert (answer.framing, answer.json()["prompt"]) == ("close", "a cat")


def test_an_answer_can_be_chunked(fal: Stand) -> None:
    """`framing=chunked` sends JSON in chunks."""
    assert fal.run("framing=chunked").framing == "chunked"


def test_an_answer_can_be_compressed(fal: Stand) -> None:
    """`gzip` codes the content; the length is that of the coded bytes."""
    answer = fal.run("gzip,size=5000")
    assert answer.field("content-encoding") == "gzip"
    assert len(answer.body) < 1000
    assert len(gzip.decompress(answer.body)) == 5000


def test_a_cut_strikes_coded_content_too(fal: Stand) -> None:
    """Faults combine: half a gzip answer is not a whole one."""
    with fal.running("gzip,size=5000,cut=40") as client:
        pieces = client.pieces(client.read_head())
        half = next(pieces)
        with pytest.raises(Truncated):
            next(pieces)
    assert not zlib.decompressobj(31).decompress(half).endswith(b"}")


def test_an_answer_can_redirect(fal: Stand) -> None:
    """`redirect` sends a 307 to another place on the same host, and executes nothing."""
    answer = fal.run("redirect")
    assert (answer.status, answer.field("location")) == (307, "https://fal.run/fal-ai/flux/dev/moved")
    assert fal.executions() == []


def test_an_answer_can_carry_what_must_not_pass(fal: Stand) -> None:
    """`baggage` sends cookies, CORS and connection fields, among them one that `Connection` names."""
    with fal.running("baggage") as client:
        head = client.read_head()
    assert len(head.values(b"set-cookie")) == 2
    for name in (b"access-control-allow-origin", b"alt-svc", b"strict-transport-security", b"server", b"keep-alive"):
        assert head.values(name)
    assert (head.values(b"connection"), head.values(b"x-emulator-hop")) == ([b"keep-alive, x-emulator-hop"], [b"1"])


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_can_be_without_content(fal: Stand, status: int) -> None:
    """204 and 304 have neither content nor length, and the connection carries the next request."""
    with fal.running(f"status={status}") as client:
        answer = client.read_response()
        assert (answer.status, answer.framing, answer.field("content-length")) == (status, "none", None)
        assert client.ask(fal.request("fal.run", "/fal-ai/flux/dev", content={})).status == 200


def test_interim_heads_come_before_the_answer(fal: Stand) -> None:
    """`interim` sends 103 heads before the answer's own."""
    assert fal.run("interim=2").interim == (103, 103)


def test_trailers_come_behind_the_content(fal: Stand) -> None:
    """`trailers` sends fields behind the last chunk."""
    request = fal.request("fal.run", "/fal-ai/flux/dev", content={}, faults="trailers")
    with RawClient(fal.port) as client:
        client.send(request)
        assert client.reader.through(b"x-fal-trailer: 1\r\nx-fal-billable-units: 999\r\n\r\n")
        assert client.ask(fal.request("fal.run", "/fal-ai/flux/dev", content={})).status == 200


def test_answer_fields_can_be_doubled(fal: Stand) -> None:
    """`field` twice gives the same field twice, kept apart."""
    with fal.running("field=x-double:1,field=x-double:2") as client:
        assert client.read_head().values(b"x-double") == [b"1", b"2"]


@pytest.mark.parametrize(("units", "shown"), [("2.5", "2.5"), ("0", "0"), ("none", None)])
def test_units_are_as_asked(fal: Stand, units: str, shown: str | None) -> None:
    """`units` is a decimal, or none for no field at all."""
    assert fal.run(f"units={units}").field("x-fal-billable-units") == shown


def test_a_content_type_can_be_asked(fal: Stand) -> None:
    """`type` gives another content type, once."""
    assert fal.run("type=application/octet-stream,size=10").field("content-type") == "application/octet-stream"


def test_a_body_can_be_read_slowly(fal: Stand) -> None:
    """With `read_pace` the body is taken so slowly that the sender is held."""
    with RawClient(fal.port, timeout_seconds=0.3) as client:
        fields = [AUTHORIZED, ("X-Fal-Emulate", "read_pace=2000"), ("Content-Length", str(2**28))]
        client.send(fal.head("fal.run", "/fal-ai/flux/dev", fields=fields))
        with pytest.raises(TimeoutError):
            client.send(b"x" * 2**26)
    assert fal.control("requests?limit=1&kind=run")["requests"][0]["bytes"] < 2**22


def test_a_large_answer_is_not_collected(fal: Stand) -> None:
    """An answer of 256 MB leaves while the process grows by no more than 16 MB."""
    with fal.running(f"size={2**28}") as client, fal.level(16 * 2**20) as look:
        received = 0
        for piece in client.pieces(client.read_head()):
            received += len(piece)
            look()
    assert received == 2**28


def test_an_answer_can_be_followed_by_one_that_no_one_asked_for(fal: Stand) -> None:
    """The asked answer is whole, and another one waits on the connection, which stays open."""
    with fal.running("behind") as client:
        assert client.read_response().json()["images"]
        assert client.read_response().json() == {"unasked": 1}
        client.send(fal.request("fal.run", "/fal-ai/flux/dev", content={"prompt": "x"}))
        assert client.read_response().json()["images"]
