"""How fal says that it will not serve this account, this credential, or so much at once.

The decision: 401, 402, 403 and 429 speak about us. Other answers of 4xx speak about the request (a model's validation,
an unknown job), and their caller is the one to read them. A 401 is the operator's fault and is not passed on. A locked
account differs from other 403s by fal's own sentence, `User is locked. Reason: …`, so the beginning of such an answer's
content is kept until it is whole.
"""

from __future__ import annotations

import zlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.http.problem import refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_REFUSED: Final = 400
"""Below it no status is a refusal: one compare on the way of a good answer."""

UNAUTHORIZED: Final = 401
UPSTREAM_UNAUTHORIZED: Final = refusal(
    "upstream_unauthorized",
    "fal refused the gateway's own credential. Your key is valid; tell the operator of this gateway.",
)
"""What a caller gets in place of fal's 401, which a client would think is about its own key."""

_FORBIDDEN: Final = 403
_REASONS: Final = MappingProxyType(
    {UNAUTHORIZED: "credential_rejected", 402: "other", _FORBIDDEN: "other", 429: "rate_limited"}
)
_KEPT_BYTES: Final = 4_096
_LOCK: Final = b"user is locked"
_GZIP_OR_ZLIB: Final = 47  # zlib: a window of 32 KiB, and the head of either


class Refused:
    """One answer by which fal refuses, as it comes."""

    __slots__ = ("_beginning", "_status")

    def __init__(self, status: int) -> None:
        self._status = status
        self._beginning = b""

    def take(self, pieces: Sequence[bytes]) -> None:
        """Take pieces of its content; what lies behind the first 4 KiB is not looked at."""
        if self._status == _FORBIDDEN and len(self._beginning) < _KEPT_BYTES:
            self._beginning += b"".join(pieces)[:_KEPT_BYTES]

    @property
    def reason(self) -> str:
        """Why it refuses, as far as it has been told: rate_limited, account_locked, credential_rejected or other."""
        if self._status == _FORBIDDEN and _LOCK in _plain(self._beginning).lower():
            return "account_locked"
        return _REASONS[self._status]


def refused(status: int) -> Refused | None:
    """Return the refusal that an answer with this status is; None where it is none."""
    return Refused(status) if status in _REASONS else None


def _plain(content: bytes) -> bytes:
    """Return content as it reads: a caller may have asked for gzip, and answers pass undecoded."""
    if not content.startswith((b"\x1f\x8b", b"\x78")):
        return content
    try:
        return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(content, _KEPT_BYTES)
    except zlib.error:
        return content
