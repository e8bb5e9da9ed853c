"""Field lines of what goes to the caller: relayed heads, own answers, and CORS (Fetch standard, section 3.3).

A page of another origin reads an answer only when it says so, errors included, so every answer is built here. Keys come
in a field and never in a cookie, hence no `access-control-allow-credentials`, and never `*`.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from gateway.http.fields import AnswerHead, exposed
from gateway.http.problem import Problem, render

if TYPE_CHECKING:
    from collections.abc import Sequence

METHODS: Final = ("GET", "POST", "PUT", "DELETE")
"""What may be asked for through the proxy; OPTIONS is answered here, for CORS."""

ALLOW: Final = (b"allow", b"GET, POST, PUT, DELETE, OPTIONS")
_EVENT_STREAM: Final = b"text/event-stream"
_STREAM_LINES: Final = (b"X-Accel-Buffering: no\r\n", b"Cache-Control: no-cache\r\n")  # or a proxy holds events back
_VARY: Final = b"Vary: Origin\r\n"
_VARY_PREFLIGHT: Final = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
_FIELD_NAMES: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_LONGEST_FIELD_NAMES: Final = 2048


class Replies:
    """Builds heads for callers of a given set of page origins."""

    def __init__(self, cors_origins: frozenset[bytes]) -> None:
        """Take the exact origins (`https://app.example`) that may read answers."""
        self._cors_origins = cors_origins
        self._dated_at = -1
        self._date = b""

    def _date_line(self) -> bytes:
        """Return what every answer of one's own has to have (RFC 9110, section 6.6.1); fal's have theirs."""
        second = int(time.time())
        if second != self._dated_at:
            self._dated_at = second
            self._date = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._date

    def relayed(self, head: AnswerHead, own: Sequence[bytes], *, request_id: str, page: bytes | None) -> list[bytes]:
        """Return the lines of an origin's answer, and `own` ones; `page` is the caller's Origin field."""
        lines = head.lines
        if head.content_type.startswith(_EVENT_STREAM):
            lines = [line for line in lines if not line.lower().startswith((b"cache-control:", b"x-accel-buffering:"))]
            lines.extend(_STREAM_LINES)
        lines.append(b"x-gateway-request-id: %b\r\n" % request_id.encode())
        lines.extend(own)
        return lines + self._cors(lines, page)

    def problem(
        self, problem: Problem, own: Sequence[bytes] = (), *, request_id: str, page: bytes | None
    ) -> tuple[list[bytes], bytes]:
        """Return the lines, `own` ones with them, and the content of a refusal or an origin failure."""
        lines = [
            self._date_line(),
            b"Content-Type: application/json\r\n",
            b"Cache-Control: no-store\r\n",
            b"x-fal-error-type: %b\r\n" % problem.error_type.encode(),
            b"x-gateway-request-id: %b\r\n" % request_id.encode(),
            *(b"%b: %b\r\n" % field for field in problem.fields),
            *own,
        ]
        return lines + self._cors(lines, page), render(problem, request_id)

    def document(self, *, request_id: str, page: bytes | None) -> list[bytes]:
        """Return the lines of JSON of the gateway's own that is no problem."""
        lines = [
            self._date_line(),
            b"Content-Type: application/json\r\n",
            b"Cache-Control: no-store\r\n",
            b"x-gateway-request-id: %b\r\n" % request_id.encode(),
        ]
        return lines + self._cors(lines, page)

    def preflight(self, asked: bytes | None, *, request_id: str, page: bytes | None) -> list[bytes]:
        """Return the lines of an answer to OPTIONS; `asked` is Access-Control-Request-Headers."""
        lines = [self._date_line(), b"x-gateway-request-id: %b\r\n" % request_id.encode()]
        if page is None or page not in self._cors_origins:
            return [*lines, b"%b: %b\r\n" % ALLOW, _VARY_PREFLIGHT]
        lines += [
            b"Access-Control-Allow-Origin: %b\r\n" % page,
            b"Access-Control-Allow-Methods: %b\r\n" % ", ".join(METHODS).encode(),
            b"Access-Control-Max-Age: 7200\r\n",
            _VARY_PREFLIGHT,
        ]
        if asked and len(asked) <= _LONGEST_FIELD_NAMES and _FIELD_NAMES.fullmatch(asked):
            lines.append(b"Access-Control-Allow-Headers: %b\r\n" % asked)
        return lines

    def _cors(self, lines: Sequence[bytes], page: bytes | None) -> list[bytes]:
        if not self._cors_origins:
            return []
        if page is None or page not in self._cors_origins:
            return [_VARY]
        return [
            b"Access-Control-Allow-Origin: %b\r\n" % page,
            b"Access-Control-Expose-Headers: %b\r\n" % exposed(lines),
            _VARY,
        ]
