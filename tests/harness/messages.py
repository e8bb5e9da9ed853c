"""Whole HTTP/1.1 messages as bytes, for a test to send: requests to the proxy, answers of an origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.harness.policy import GatewayKey

PROXY_PATH: Final = "/api/fal/proxy"
RUN_TARGET: Final = "https://fal.run/fal-ai/flux/dev"
CHUNK_BYTES: Final = 65536
NO_BODY: Final = frozenset({"GET", "OPTIONS", "HEAD", "DELETE"})


def chunked(body: bytes, *, size: int = CHUNK_BYTES) -> bytes:
    """Return `body` in the chunked coding, with its last chunk."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def message(start: str, fields: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """Return a message out of its start line, fields as they are given, and a body as it is given."""
    lines = [start, *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def proxy_head(  # noqa: PLR0913 - each is one thing that some test changes
    target: str | None = RUN_TARGET,
    *,
    key: GatewayKey | str | None = None,
    method: str = "POST",
    fields: Sequence[tuple[str, str]] = (),
    path: str = PROXY_PATH,
    host: str = "gateway.test",
    content_type: str | None = "application/json",
) -> bytes:
    """Return the head of a request to the gateway, without any framing field: the caller brings its own."""
    named = [("Host", host)]
    named += [("x-fal-target-url", target)] if target is not None else []
    named += [("Authorization", f"Key {getattr(key, 'secret', key)}")] if key is not None else []
    named += [("Content-Type", content_type)] if content_type is not None else []
    return message(f"{method} {path} HTTP/1.1", [*named, *fields])


def proxy_request(  # noqa: PLR0913 - each is one thing that some test changes
    target: str | None = RUN_TARGET,
    *,
    key: GatewayKey | str | None = None,
    method: str = "POST",
    body: bytes | None = None,
    fields: Sequence[tuple[str, str]] = (),
    path: str = PROXY_PATH,
    content_type: str | None = "application/json",
    in_chunks: bool = False,
) -> bytes:
    """Return a whole request to the gateway; the body is `{}` for methods that have one, unless another is given."""
    content = body if body is not None else b"" if method in NO_BODY else b"{}"
    framing: list[tuple[str, str]] = []
    if in_chunks:
        framing, content = [("Transfer-Encoding", "chunked")], chunked(content)
    elif content or method not in NO_BODY:
        framing = [("Content-Length", str(len(content)))]
    head = proxy_head(target, key=key, method=method, fields=[*framing, *fields], path=path, content_type=content_type)
    return head + content


def http_response(
    body: bytes = b'{"ok":true}',
    status: int = 200,
    *,
    fields: Sequence[tuple[str, str]] = (("Content-Type", "application/json"),),
    in_chunks: bool = False,
) -> bytes:
    """Return a whole answer of an origin, its length declared or in chunks."""
    framing = ("Transfer-Encoding", "chunked") if in_chunks else ("Content-Length", str(len(body)))
    return message(f"HTTP/1.1 {status} Scripted", [framing, *fields], chunked(body) if in_chunks else body)
