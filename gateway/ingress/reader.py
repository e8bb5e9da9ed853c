"""Bytes to requests: llhttp by `httptools`, strict, plus the rules that it leaves to its user.

llhttp refuses what request smuggling lives on: repeated or odd Content-Length, Content-Length beside
Transfer-Encoding, folded fields, bare CR or LF, blanks before a colon, odd chunk sizes. Added here: a bound on the
head, `chunked` as the only transfer coding and only in HTTP/1.1, versions 1.0 and 1.1 only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import httptools

from gateway.http.message import UNKNOWN_LENGTH, Fault, RequestHead

if TYPE_CHECKING:
    from gateway.ingress.pipeline import PipelinedRequests

HEAD_BYTES: Final = 16_384
HEAD_FIELDS: Final = 100
_FIELD_OVERHEAD_BYTES: Final = 4  # ": " and the line end
_AUTHORITY: Final = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_METHOD_LIKE: Final = re.compile(rb"\s*[A-Za-z][!#$%&'*+\-.^_`|~0-9A-Za-z]{0,31} ")


class _FaultRaisedError(Exception):
    """Leaves the parser from within a callback."""


class RequestReader:
    """One connection's parser."""

    __slots__ = (
        "_begun",
        "_fault",
        "_fields",
        "_head_bytes",
        "_in_head",
        "_length",
        "_muted",
        "_parser",
        "_partial_bytes",
        "_read_at",
        "_requests",
        "_url",
        "in_request",
        "peer",
    )

    def __init__(self, requests: PipelinedRequests, peer: str) -> None:
        """Take who is told of requests as they come in, and the caller's address."""
        self._requests = requests
        self.peer = peer
        self._read_at = 0.0
        self._fault: Fault | None = None
        self.in_request = False  # bytes of a request have come, and not yet all of it
        self._in_head = True
        self._begun = 0  # requests that began in this read
        self._head_bytes = 0  # in whole fields
        self._partial_bytes = 0  # in reads that did not make the head whole
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        self._muted = False
        self._parser = httptools.HttpRequestParser(self)

    @property
    def in_head(self) -> bool:
        """Whether a head has begun and is not whole."""
        return self._in_head and self.in_request

    def feed(self, data: bytes, now: float) -> Fault | None:
        """Parse what was read at `now`, monotonic seconds. Returns a fault once: nothing more may be fed then."""
        self._read_at = now
        partial = self.in_head
        self._begun = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            return _unknown_method(data if self._begun == 1 else b"")
        except httptools.HttpParserCallbackError:
            if self._fault is None:  # a bug behind it: not the caller's fault, and not to be told as one
                raise
            return self._fault
        except httptools.HttpParserError as error:
            return Fault("request_invalid", f"The request could not be parsed: {error}.")
        if partial and not self._begun and self.in_head:  # all of it was of the one head
            self._partial_bytes += len(data)
            if self._partial_bytes > HEAD_BYTES:
                return _HEAD_TOO_LARGE
        return None

    def _stay(self, rest: bytes) -> Fault | None:
        """Go on in HTTP/1.1 where the caller offered another protocol; `rest` is what follows that head.

        llhttp takes the content for the other protocol's, so a parser that is told only of the framing takes over.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._length:
            coding = f"Content-Length: {self._length}" if self._length > 0 else "Transfer-Encoding: chunked"
            self._muted = True
            self._parser.feed_data(f"POST / HTTP/1.1\r\n{coding}\r\n\r\n".encode())
            self._muted = False
            self.in_request, self._in_head = True, False
        return self.feed(rest, self._read_at) if rest else None

    # -- callbacks of httptools -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Note the first byte of a request."""
        if self._muted:
            return
        self._begun += 1
        self.in_request = self._in_head = True
        self._head_bytes = self._partial_bytes = 0
        self._url = b""
        self._fields = []

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a part of it."""
        if self._muted:
            return
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or a trailer, which is dropped."""
        if self._muted:
            return
        self._count(len(name) + len(value) + _FIELD_OVERHEAD_BYTES)
        if self._in_head:
            self._fields.append((name.lower(), value.rstrip(b" \t")))
            if len(self._fields) > HEAD_FIELDS:
                self._refuse(_HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Tell of a head."""
        if self._muted:
            return
        version = self._parser.get_http_version()
        self._length, expects = self._framing(version)
        self._in_head = False
        head = RequestHead(
            self._parser.get_method().decode("ascii"),
            self._url if self._url.startswith(b"/") else _origin_form(self._url),
            fields=self._fields,
            length=self._length,
            expects_continue=expects,
            is_http_10=version == "1.0",
            peer=self.peer,
            received_at=self._read_at,
        )
        self._requests.on_head(head, keeps_alive=self._parser.should_keep_alive())

    def on_body(self, piece: bytes) -> None:
        """Tell of content."""
        self._requests.on_content(piece)

    def on_message_complete(self) -> None:
        """Tell of the end."""
        if self._length and self._parser.should_upgrade():  # not the end: its content follows (`_stay`)
            return
        self.in_request = False
        self._in_head = True
        self._requests.on_end()

    # -- rules ------------------------------------------------------------------------------------------------------

    def _framing(self, version: str) -> tuple[int | None, bool]:
        """Return the content's length and whether the caller waits for 100 Continue."""
        if version not in ("1.0", "1.1"):
            self._refuse(Fault("request_invalid", "HTTP/1.1 and HTTP/1.0 are spoken here."))
        length, expects = None, False
        for name, value in self._fields:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or version == "1.0":
                    self._refuse(Fault("request_invalid", "The only transfer coding is chunked, in HTTP/1.1."))
                length = UNKNOWN_LENGTH
            elif name == b"expect":
                expects = value.lower() == b"100-continue" and version == "1.1"
        return length, expects

    def _count(self, size: int) -> None:
        self._head_bytes += size  # trailers too
        if self._head_bytes > HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE)

    def _refuse(self, fault: Fault) -> None:
        self._fault = fault
        raise _FaultRaisedError


_HEAD_TOO_LARGE: Final = Fault(
    "head_too_large", f"A request head may have {HEAD_BYTES} bytes and {HEAD_FIELDS} fields at most."
)


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a target with scheme and host, which replace Host (RFC 9112 section 3.2.2)."""
    authority = _AUTHORITY.match(target)
    if authority is None:
        return target
    path = target[authority.end() :]
    return path if path.startswith(b"/") else b"/" + path


def _unknown_method(data: bytes) -> Fault:
    if _METHOD_LIKE.match(data):
        return Fault("method_not_allowed", "Only GET, POST, PUT, DELETE and OPTIONS are served.")
    return Fault("request_invalid", "This is not an HTTP request.")
