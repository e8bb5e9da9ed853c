"""Which fields pass, in both directions: two tables with a look-up for each name.

Both heads are built from what may pass, never by taking out what may not. The verdict on a name is worked out once and
then found in a bounded table: a head has a dozen fields, and the same dozen come with every request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

Fields = Sequence[tuple[bytes, bytes]]
"""Request fields in the order of arrival: lower-case names, values without surrounding blanks, repeats kept apart."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z_]+")
_VERDICTS_KEPT: Final = 1024

_CONNECTION_FIELDS: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_TO_ORIGIN: Final = frozenset(
    (
        b"accept-encoding",
        b"accept-language",
        b"content-encoding",
        b"user-agent",
        b"range",
        b"traceparent",
        b"tracestate",
        b"idempotency-key",
    )
)
_TO_ORIGIN_PREFIXES: Final = (b"x-fal-", b"x-app-fal-", b"if-")
_OURS: Final = frozenset((b"x-fal-target-url", b"x-fal-client-proxy"))
_NOT_TO_CALLER: Final = _CONNECTION_FIELDS | {
    b"set-cookie",
    b"set-cookie2",
    b"alt-svc",
    b"strict-transport-security",
    b"server",
    b"content-length",  # said anew from what is sent
}
_NOT_TO_CALLER_PREFIXES: Final = (b"access-control-", b"x-gateway-")  # what they tell is this gateway's to tell
_EXPOSED_PREFIXES: Final = ("x-fal-", "x-gateway-", "ratelimit")


def first(fields: Fields, name: bytes) -> bytes | None:
    """Return the value of the first field of that (lower-case) name, None without one."""
    for key, value in fields:
        if key == name:
            return value
    return None


def repeated(fields: Fields, names: Iterable[bytes]) -> bytes | None:
    """Return the first of `names` that stands more than once among the fields."""
    keys = [key for key, _ in fields]
    if len(set(keys)) == len(keys):
        return None
    for name in names:
        if keys.count(name) > 1:
            return name
    return None


def _named_by_connection(values: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(name.strip(b" \t").lower() for value in values for name in value.split(b","))


# One bit to pass, one for each that libcurl would add itself.
_DROPPED: Final = 0
_PASSED: Final = 1
_ACCEPT: Final = 3
_CONTENT_TYPE: Final = 5
_NO_ACCEPT: Final = b"accept:"
_NO_CONTENT_TYPE: Final = b"content-type:"
_INVENTED: Final = ((b"accept", 2), (b"content-type", 4))  # and so not to be left to libcurl where they end here


def _to_origin(name: bytes) -> int:
    if b"_" in name or name in _OURS:  # an underscore can shadow a hyphen behind a CGI-like origin
        return _DROPPED
    if name in (b"accept", b"content-type"):
        return _ACCEPT if name == b"accept" else _CONTENT_TYPE
    return _PASSED if name in _TO_ORIGIN or name.startswith(_TO_ORIGIN_PREFIXES) else _DROPPED


class OriginFields:
    """Builds the field lines of the request to the origin."""

    def __init__(self, own: Sequence[bytes]) -> None:
        """Take the gateway's own lines (credential, via, ...), added to every request after the caller's."""
        self._own = list(own)
        self._verdicts: dict[bytes, int] = {}

    def lines(self, fields: Fields) -> list[bytes]:
        """Return the lines (`name: value`, without line ends) that may pass, then the gateway's own.

        In libcurl's words: `name;` is a field with an empty value, `name:` takes out one that it would add by itself.
        """
        verdicts = self._verdicts
        lines = []
        seen = 0
        nominated: frozenset[bytes] | None = None
        for name, value in fields:
            verdict = verdicts.get(name)
            if verdict is None:
                verdict = self._judge(name)
            if verdict:
                seen |= verdict
                lines.append(name + b": " + value if value else name + b";")
            elif name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
                nominated = _named_by_connection(v for n, v in fields if n == b"connection")
        if nominated:
            lines = [line for line in lines if line.partition(b":")[0].rstrip(b";") not in nominated]
            seen &= ~sum(bit for name, bit in _INVENTED if name in nominated)
        if not seen & 2:
            lines.append(_NO_ACCEPT)
        if not seen & 4:
            lines.append(_NO_CONTENT_TYPE)
        return lines + self._own

    def _judge(self, name: bytes) -> int:
        verdict = _to_origin(name)
        if len(self._verdicts) < _VERDICTS_KEPT:
            self._verdicts[name] = verdict
        return verdict


class AnswerHead:
    """What the exchange needs of an origin's head: status, the lines that pass, and the few values that it reads."""

    __slots__ = ("coded", "content_type", "length", "lines", "request_id", "status", "units")

    def __init__(self, status: int) -> None:
        self.status = status
        self.lines: list[bytes] = []
        self.coded = False  # framed by a transfer coding: a length beside it is a lie (RFC 9112 section 6.3)
        self.length: int | None = None
        self.content_type = b""
        self.request_id: str | None = None
        self.units: str | None = None

    @property
    def is_json(self) -> bool:
        """Whether the content is one JSON text, as whose type says so (RFC 6839, section 3.1)."""
        kind = self.content_type.partition(b";")[0].rstrip()
        return kind == b"application/json" or kind.endswith(b"+json")


_PASS: Final = 0
_DROP: Final = 1
_LENGTH: Final = 2
_TYPE: Final = 3
_REQUEST_ID: Final = 4
_UNITS: Final = 5
_CONNECTION: Final = 6
_CODING: Final = 7
_READ: Final = {
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"content-type": _TYPE,
    b"x-fal-request-id": _REQUEST_ID,
    b"x-fal-billable-units": _UNITS,
    b"connection": _CONNECTION,
}


class CallerFields:
    """Reads an origin's head and keeps what may pass to the caller."""

    def __init__(self) -> None:
        self._verdicts: dict[bytes, int] = {}

    def read(self, status: int, raw: Sequence[bytes]) -> AnswerHead:
        """Return the head made of `raw`: field lines with their line ends, as the origin sent them.

        Lines that are no field (folded, no colon, a bare CR within) are dropped: they must not reach a caller's parser.
        """
        head = AnswerHead(status)
        verdicts = self._verdicts
        nominated: list[bytes] = []
        for line in raw:
            name, colon, value = line.partition(b":")
            verdict = verdicts.get(name)
            if verdict is None:
                verdict = self._judge(name, colon)
            if verdict != _PASS and not self._note(head, verdict, value.strip(), nominated):
                continue
            head.lines.append(line if line[-2:] == b"\r\n" else line.rstrip(b"\r\n") + b"\r\n")
        if head.coded:
            head.length = None
        if nominated:
            gone = _named_by_connection(nominated)
            head.lines = [line for line in head.lines if line.partition(b":")[0].lower() not in gone]
        if b"".join(head.lines).count(b"\r") != len(head.lines):
            head.lines = [line for line in head.lines if line.count(b"\r") == 1]
        return head

    def _judge(self, name: bytes, colon: bytes) -> int:
        key = name.lower()
        if not colon or not _TOKEN.fullmatch(name):
            return _DROP
        ours = key in _NOT_TO_CALLER or key.startswith(_NOT_TO_CALLER_PREFIXES)
        verdict = _READ.get(key, _DROP if ours else _PASS)
        if len(self._verdicts) < _VERDICTS_KEPT:
            self._verdicts[name] = verdict
        return verdict

    @staticmethod
    def _note(head: AnswerHead, verdict: int, value: bytes, nominated: list[bytes]) -> bool:
        """Take a value that the exchange reads; return whether its line passes on."""
        if verdict == _LENGTH:
            head.length = int(value) if value.isdigit() and len(value) < 20 else None  # noqa: PLR2004 (fits 64 bits)
        elif verdict == _TYPE:
            head.content_type = value.lower()
        elif verdict == _REQUEST_ID:
            head.request_id = value.decode("latin-1")
        elif verdict == _UNITS:
            units = value.decode("latin-1")
            head.units = units if head.units is None else f"{head.units}, {units}"  # a list (RFC 9110 section 5.3)
        elif verdict == _CONNECTION:
            nominated.append(value)
        elif verdict == _CODING:
            head.coded = True
        return verdict in (_TYPE, _REQUEST_ID, _UNITS)


def exposed(lines: Iterable[bytes]) -> bytes:
    """Return the value of `access-control-expose-headers` for these field lines (CORS: Fetch standard 3.3.4)."""
    names = {line.partition(b":")[0].decode("latin-1").lower() for line in lines}
    shown = sorted(n for n in names if n.startswith(_EXPOSED_PREFIXES) or n == "retry-after")
    return ", ".join(shown).encode("latin-1")
