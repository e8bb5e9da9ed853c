"""The answers that fal gives, as values: a status, fields, and content that comes in pieces.

Decision: an answer knows nothing of sockets. What is wrong with its *meaning* (another status, other units, another
size) is settled here; what is wrong with its *delivery* (late, slow, cut) is the business of delivery.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.emulator.faults import Field

PIECE_BYTES: Final = 65536
PATTERN: Final = bytes(range(97, 123)) + bytes(range(48, 58)) + b"+"
PADDING: Final = PATTERN * (PIECE_BYTES // len(PATTERN) + 2)
BODILESS: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

LOCKED: Final = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
DETAILS: Final[Mapping[int, str]] = MappingProxyType(
    {
        401: "Authentication is required to access this application",
        403: LOCKED,
        404: "Not Found",
        429: "Too many concurrent requests. Please retry later.",
        500: "Internal Server Error",
        502: "Bad Gateway",
        503: "No runner is available to serve the request",
        504: "Request timed out",
    }
)
ERROR_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        500: "runner_server_error",
        502: "runner_incomplete_response",
        503: "runner_connection_error",
        504: "request_timeout",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `length` is None where it is not known when the head goes out, `pieces` is called once."""

    status: int
    fields: tuple[Field, ...]
    length: int | None
    pieces: Callable[[], AsyncGenerator[bytes, None]]


def whole(status: int, content: bytes, *, content_type: str, fields: tuple[Field, ...] = ()) -> Answer:
    """Return an answer whose content is at hand."""
    typed = (("content-type", content_type), *fields)
    return Answer(status, typed, len(content), lambda: _each(_slices(content)))


def as_json(status: int, value: object, *, fields: tuple[Field, ...] = ()) -> Answer:
    """Return an answer with JSON content."""
    return whole(status, json.dumps(value).encode(), content_type="application/json", fields=fields)


def counted(length: int, pieces: Iterator[bytes], *, content_type: str, fields: tuple[Field, ...] = ()) -> Answer:
    """Return an answer of known length that is never in memory as a whole."""
    return Answer(200, (("content-type", content_type), *fields), length, lambda: _each(pieces))


def events(pieces: Callable[[], AsyncGenerator[bytes, None]], *, fields: tuple[Field, ...] = ()) -> Answer:
    """Return a stream of server-sent events."""
    typed = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"), *fields)
    return Answer(200, typed, None, pieces)


def event(value: object) -> bytes:
    """Return one server-sent event with JSON data."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def bare(status: int, *, fields: tuple[Field, ...] = ()) -> Answer:
    """Return an answer without content."""
    return Answer(status, fields, 0, lambda: _each(iter(())))


def failure(status: int, *, detail: object = None, fields: tuple[Field, ...] = ()) -> Answer:
    """Return an error as fal words it: `{"detail", "error_type"?}`, and for 422 a list of places."""
    if status in BODILESS:
        return bare(status, fields=fields)
    if detail is None:
        detail = misplaced("prompt", "value_error", "Input rejected") if status == 422 else DETAILS.get(status)  # noqa: PLR2004
    content: dict[str, object] = {"detail": detail or f"HTTP {status}"}
    if status in ERROR_TYPES:
        content["error_type"] = ERROR_TYPES[status]
        fields = (*fields, ("x-fal-error-type", ERROR_TYPES[status]))
    retry = (("x-fal-needs-retry", "1"),) if status == HTTPStatus.TOO_MANY_REQUESTS else ()
    return as_json(status, content, fields=(*fields, *retry))


def misplaced(name: str, kind: str, message: str) -> list[dict[str, object]]:
    """Return the detail of a 422 about one input, in the shape of FastAPI that fal's models share."""
    return [{"loc": ["body", name], "msg": message, "type": kind}]


def padded(value: Mapping[str, object], size: int) -> tuple[int, Iterator[bytes]]:
    """Return JSON of exactly `size` bytes as (length, pieces): the value with padding, or a bare text if too small."""
    opening = json.dumps(value)[:-1].encode() + b', "padding": "'
    if size >= len(opening) + 2:
        return size, _padded(opening, size - len(opening) - 2, b'"}')
    return size, _padded(b'"', size - 2, b'"') if size > 1 else iter([b"0"[:size]] if size else ())


def _padded(opening: bytes, filling: int, closing: bytes) -> Iterator[bytes]:
    """The filling repeats with a prime period, so that a lost or doubled piece shows in any comparison."""
    yield opening
    for start in range(0, filling, PIECE_BYTES):
        at = start % len(PATTERN)
        yield PADDING[at : at + min(PIECE_BYTES, filling - start)]
    yield closing


def _slices(content: bytes) -> Iterator[bytes]:
    return (content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES))


async def _each(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    try:
        for piece in pieces:
            yield piece
    finally:
        if isinstance(pieces, Generator):
            pieces.close()
