"""Bring an answer to the peer under the faults that were asked for.

Decision: faults of delivery live here and nowhere else, in the order in which they can strike: before the head, in the
head, between pieces, in place of an end.
"""

from __future__ import annotations

import gzip
from contextlib import aclosing
from dataclasses import replace
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from gateway.emulator.answers import BODILESS, Answer, whole

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gateway.emulator.faults import Faults, Field
    from gateway.emulator.wire import Wire

INTERIM: Final = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
BEHIND: Final = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"unasked": 1}\n'
"""An answer that no one asked for."""
TRAILERS: Final = b"x-fal-trailer: 1\r\nx-fal-billable-units: 999\r\n"
GZIP_MOST_BYTES: Final = 16 * 2**20
BAGGAGE: Final[tuple[Field, ...]] = (
    ("set-cookie", "session=emulator; Path=/"),
    ("set-cookie", "second=emulator; Path=/"),
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("alt-svc", 'h3=":443"; ma=86400'),
    ("strict-transport-security", "max-age=31536000"),
    ("server", "emulator"),
    ("keep-alive", "timeout=60"),
    ("connection", "keep-alive, x-emulator-hop"),
    ("x-emulator-hop", "1"),
)
"""Fields that an origin may send and an intermediary must not pass on."""


class Ending(Enum):
    """How a delivery ended, for the record."""

    ANSWERED = "answered"
    DROPPED = "dropped"


class Framing(Enum):
    """How the end of the content is marked."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    EMPTY = "empty"


async def deliver(answer: Answer, wire: Wire, *, faults: Faults, ends: bool = True) -> Ending:
    """Send the answer; return how it ended. StreamClosedError means that the peer left.

    `ends=False` leaves the exchange open behind the answer, for a request whose body is still coming.
    """
    await wire.pause(faults.delay / 1000)
    if faults.gzip:
        answer = await _compressed(answer)
    framing = _framing(answer, faults)
    await wire.write(INTERIM * faults.interim + head(answer, framing, faults=faults))
    if framing is not Framing.EMPTY and not await _content(answer, wire, framing=framing, faults=faults):
        return Ending.DROPPED
    if framing is Framing.NONE:
        wire.drop(reset=faults.reset)
    elif ends:
        wire.finish()
    return Ending.ANSWERED


def head(answer: Answer, framing: Framing, *, faults: Faults) -> bytes:
    """Return the head of an answer as it goes over the wire."""
    fields = [*answer.fields, *(BAGGAGE if faults.baggage else ()), *faults.fields]
    if framing is Framing.LENGTH:
        fields.append(("content-length", str(answer.length)))
    elif framing is Framing.CHUNKED:
        fields.append(("transfer-encoding", "chunked"))
    elif framing is Framing.NONE:
        fields.append(("connection", "close"))
    if faults.trailers:
        fields.append(("trailer", "x-fal-trailer"))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {answer.status} {_phrase(answer.status)}\r\n{lines}\r\n".encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _framing(answer: Answer, faults: Faults) -> Framing:
    if answer.status in BODILESS:
        return Framing.EMPTY
    if faults.trailers:
        return Framing.CHUNKED
    if faults.framing and not (faults.framing == "length" and answer.length is None):
        return Framing(faults.framing)
    return Framing.CHUNKED if answer.length is None else Framing.LENGTH


async def _content(answer: Answer, wire: Wire, *, framing: Framing, faults: Faults) -> bool:
    """Send the content; return whether it was brought to its end."""
    if faults.behind:
        answer = await _with_unasked_bytes(answer, framing)
        framing = Framing.LENGTH  # as it is written; the head has gone out
    limit = faults.cut if faults.cut is not None else faults.stall
    async with aclosing(_paced(answer, wire, limit=limit, faults=faults)) as pieces:
        async for piece in pieces:
            await wire.write(b"%x\r\n%b\r\n" % (len(piece), piece) if framing is Framing.CHUNKED else piece)
    if faults.cut is not None:
        wire.drop(reset=faults.reset)
        return False
    while faults.stall is not None:
        await wire.pause(None)  # ends with StreamClosedError, when the peer has had enough
    if framing is Framing.CHUNKED:
        await wire.write(b"0\r\n%b\r\n" % (TRAILERS if faults.trailers else b""))
    return True


async def _with_unasked_bytes(answer: Answer, framing: Framing) -> Answer:
    """Return the content in its framing, with an answer that no one asked for right behind it, in one piece."""
    content = b"".join([piece async for piece in answer.pieces()])
    if framing is Framing.CHUNKED:
        content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    return whole(answer.status, content + BEHIND, content_type="")


async def _paced(answer: Answer, wire: Wire, *, limit: int | None, faults: Faults) -> AsyncGenerator[bytes, None]:
    """Yield the content in the asked pieces, with the asked pause between them, up to `limit` bytes."""
    left = 2**62 if limit is None else limit
    first = True
    async with aclosing(answer.pieces()) as pieces:
        async for piece in pieces:
            for part in _parts(piece[:left], faults.piece):
                if not first:
                    await wire.pause(faults.pace / 1000)
                first = False
                yield part
            left -= min(left, len(piece))
            if left == 0:
                return


def _parts(piece: bytes, size: int | None) -> list[bytes]:
    if size is None or len(piece) <= size:
        return [piece] if piece else []
    return [piece[at : at + size] for at in range(0, len(piece), size)]


async def _compressed(answer: Answer) -> Answer:
    """Return the answer coded with gzip, its length true of the coded bytes; streams and giants stay as they are."""
    if answer.length is None or answer.length > GZIP_MOST_BYTES or answer.status in BODILESS:
        return answer
    content = b"".join([piece async for piece in answer.pieces()])
    coded = whole(answer.status, gzip.compress(content, mtime=0), content_type="application/json")
    return replace(coded, fields=(*answer.fields, ("content-encoding", "gzip")))
