"""Rules of uploads and downloads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.client import RawClient, Response

if TYPE_CHECKING:
    from tests.emulator.stand import Stand


def initiate(fal: Stand, kind: str = "initiate") -> tuple[str, str]:
    """Begin an upload and return the paths of the upload and of the file."""
    path = f"/storage/upload/{kind}?storage_type=fal-cdn-v3"
    answer = fal.ask("rest.fal.ai", path, content={"content_type": "text/plain", "file_name": "a b.txt"})
    assert answer.status == 200
    assert set(answer.json()) == {"upload_url", "file_url"}
    return tuple(answer.json()[name].removeprefix(fal.url) for name in ("upload_url", "file_url"))


def own(fal: Stand, path: str, **more: Any) -> Response:  # noqa: ANN401 - as `request` takes it
    """Ask the emulator's own address, without a key."""
    return fal.ask(f"127.0.0.1:{fal.port}", path, fields=(), **more)


def part_path(upload: str, part: str) -> str:
    """Return the upload's path with one more segment, the query kept, as the client builds it."""
    path, _, query = upload.partition("?")
    return f"{path}/{part}?{query}"


def test_what_goes_up_comes_down(fal: Stand) -> None:
    """A file is PUT to the signed URL without a key and read back byte for byte, with its content type."""
    upload, file = initiate(fal)
    content = b"some content" * 10000
    assert own(fal, file, method="GET").status == 404
    assert own(fal, upload, method="PUT", content=content).status == 200
    answer = own(fal, file, method="GET")
    assert (answer.body, answer.field("content-type")) == (content, "text/plain")


def test_parts_are_put_together_in_order(fal: Stand) -> None:
    """Parts may come in any order and again; the file is there once it is completed with their numbers and etags."""
    upload, file = initiate(fal, "initiate-multipart")
    pieces = {2: b"two" * 50000, 1: b"one" * 50000, 3: b"three"}
    own(fal, part_path(upload, "1"), method="PUT", content=b"a first try")
    stored = [own(fal, part_path(upload, str(n)), method="PUT", content=c).json() for n, c in pieces.items()]
    assert own(fal, file, method="GET").status == 404
    assert own(fal, part_path(upload, "complete"), content={"parts": stored}).status == 200
    assert own(fal, file, method="GET").body == pieces[1] + pieces[2] + pieces[3]


def test_a_completion_must_name_what_arrived(fal: Stand) -> None:
    """A missing part or another etag is a 400, and there is no file."""
    upload, file = initiate(fal, "initiate-multipart")
    stored = own(fal, part_path(upload, "1"), method="PUT", content=b"x").json()
    for parts in ([], [{**stored, "etag": "other"}], [stored, {**stored, "partNumber": 2}]):
        assert own(fal, part_path(upload, "complete"), content={"parts": parts}).status == 400
    assert own(fal, part_path(upload, "complete"), content=b"no JSON").status == 400
    assert own(fal, file, method="GET").status == 404


def test_an_upload_needs_its_signature(fal: Stand) -> None:
    """A URL without its token, or of an object that is not known, takes nothing."""
    upload, _ = initiate(fal)
    assert own(fal, upload.partition("?")[0], method="PUT", content=b"x").status == 403
    assert own(fal, "/storage/uploads/abc123/x?token=y", method="PUT", content=b"x").status == 404


def test_half_an_upload_is_no_file(fal: Stand) -> None:
    """A PUT that breaks off leaves no file behind."""
    upload, file = initiate(fal)
    with RawClient(fal.port) as client:
        client.send(fal.head("x", upload, method="PUT", fields=[("Content-Length", "100")]) + b"half")
    fal.outcome("incomplete")
    assert own(fal, file, method="GET").status == 404


def test_storage_is_open_to_every_page(fal: Stand) -> None:
    """A browser may PUT and GET directly from any origin: preflight, answer and error carry the CORS fields."""
    upload, file = initiate(fal)
    preflight = own(fal, upload, method="OPTIONS")
    assert (preflight.status, preflight.framing) == (204, "none")
    assert "PUT" in str(preflight.field("access-control-allow-methods"))
    for answer in (preflight, own(fal, file, method="GET"), own(fal, upload, method="PUT", content=b"x")):
        assert answer.field("access-control-allow-origin") == "*"


@pytest.mark.parametrize("content", [{}, {"file_name": "x"}, {"content_type": "x"}, b"no JSON"])
def test_a_beginning_needs_name_and_type(fal: Stand, content: object) -> None:
    """An upload without name or type is a 422."""
    assert fal.ask("rest.fal.ai", "/storage/upload/initiate", content=content).status == 422


def test_a_beginning_needs_the_key(fal: Stand) -> None:
    """Only the signed URLs work without a key."""
    assert fal.ask("rest.fal.ai", "/storage/upload/initiate", content={}, fields=()).status == 401


def test_a_large_file_is_not_collected(fal: Stand) -> None:
    """A file of 100 MB goes up and down while the process grows by no more than 16 MB."""
    upload, file = initiate(fal)
    piece, count = b"0123456789abcdef" * 65536, 100
    sent, received = hashlib.sha256(), hashlib.sha256()
    with RawClient(fal.port) as client, fal.level(16 * 2**20) as look:
        client.send(fal.head("x", upload, method="PUT", fields=[("Content-Length", str(len(piece) * count))]))
        for _ in range(count):
            client.send(piece)
            sent.update(piece)
            look()
        assert client.read_response().status == 200
        client.send(fal.request("x", file, method="GET", fields=()))
        for received_piece in client.pieces(client.read_head()):
            received.update(received_piece)
            look()
    assert received.digest() == sent.digest()
