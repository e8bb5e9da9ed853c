"""Who calls: the gateway key of a request, its grammar, and the principal behind it.

The decisions it carries:

* A key is kept only as its SHA-256, which is right for 190 random bits; anything slower would let strangers stall the
  event loop. The digest is also the look-up key. That is safe without a comparison in constant time: a guesser learns
  at most how the digest of a guess compares with a stored one, and cannot steer digests. The key's own bytes are
  compared with nothing.
* Every "no" but "no credential at all" is one and the same value, so unknown, mistyped, expired and revoked keys
  answer alike.
* A mistyped key of our own grammar is known by its checksum, before any look-up.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.http.problem import Problem, refusal
from gateway.policy.quota import NO_LIMITS, LimitSet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.policy.budget import Budget
    from gateway.policy.glob import GlobSet

MAX_CREDENTIAL_BYTES: Final = 512
MAX_TOKEN_SECONDS: Final = 120
"""How long a realtime token lives at most where the policy does not say."""

PREFIX: Final = "gwk_"
ID_CHARACTERS: Final = 8
SECRET_CHARACTERS: Final = 32
CHECKSUM_CHARACTERS: Final = 6

_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BASE62_BYTES: Final = frozenset(_BASE62.encode())
_PAIRS: Final = tuple((high + low).encode() for high in _BASE62 for low in _BASE62)
_FAIR_BYTES: Final = 256 - 256 % len(_BASE62)
_PREFIX_BYTES: Final = PREFIX.encode()
_SEPARATOR: Final = len(PREFIX) + ID_CHARACTERS
_BODY_BYTES: Final = _SEPARATOR + 1 + SECRET_CHARACTERS
_KEY_BYTES: Final = _BODY_BYTES + CHECKSUM_CHARACTERS

_CREDENTIAL_FIELDS: Final = frozenset({b"authorization", b"x-gateway-key"})
_BOTH: Final = len(_CREDENTIAL_FIELDS)
_SCHEMES: Final = frozenset({b"key", b"bearer"})
_CHALLENGE: Final = ((b"www-authenticate", b'Key realm="fal-gateway"'),)

CREDENTIAL_MISSING: Final = refusal(
    "credential_missing", "A gateway key is needed: Authorization: Key …, Bearer …, or X-Gateway-Key: ….", _CHALLENGE
)
CREDENTIAL_INVALID: Final = refusal("credential_invalid", "The gateway key is not valid here.", _CHALLENGE)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: `expires_at` in seconds since the epoch; None there and in the next two means no bound.

    `paid` and `free` are the limits that its calls of either class meet. `by_address`: they are each address's own.
    `budgets`: the key's, then its team's. `may_open_realtime`: it gets realtime tokens, of at most `max_token_seconds`.
    """

    key: str
    team: str
    expires_at: float | None
    endpoints: GlobSet | None
    max_body_bytes: int | None
    paid: LimitSet = NO_LIMITS
    free: LimitSet = NO_LIMITS
    by_address: bool = False
    budgets: tuple[Budget, ...] = ()
    may_open_realtime: bool = True
    max_token_seconds: int = MAX_TOKEN_SECONDS


ANONYMOUS: Final = Principal("anonymous", "anonymous", None, None, None, by_address=True)


def identify(
    fields: Sequence[tuple[bytes, bytes]], keys: Mapping[bytes, Principal], *, now: float, anonymous: Principal | None
) -> Principal | Problem:
    """Return whose request this is, or why nobody's.

    `fields` have lower-case names and stripped values, `keys` goes by the SHA-256 of a key's text, `now` is in
    seconds since the epoch. `anonymous` stands for callers without a key; None: there may be none.
    """
    found = [field for field in fields if field[0] in _CREDENTIAL_FIELDS]
    if not found:
        return anonymous or CREDENTIAL_MISSING
    if len(found) == _BOTH and {name for name, _ in found} == _CREDENTIAL_FIELDS:
        found = [field for field in found if not _is_foreign(*field)]
    if len(found) > 1:
        return CREDENTIAL_INVALID
    name, value = found[0]
    text = _credential_in(name, value)
    if not 0 < len(text) <= MAX_CREDENTIAL_BYTES or is_mistyped(text):
        return CREDENTIAL_INVALID
    principal = keys.get(digest_of(text))
    if principal is None or (principal.expires_at is not None and now >= principal.expires_at):
        return CREDENTIAL_INVALID
    return principal


def _credential_in(name: bytes, value: bytes) -> bytes:
    """Return the credential in one field; empty where the scheme is none of ours (RFC 9110, section 11.4)."""
    if name == b"x-gateway-key":
        return value
    scheme, _, text = value.partition(b" ")
    return text.lstrip(b" ") if scheme.lower() in _SCHEMES else b""


def _is_foreign(name: bytes, value: bytes) -> bool:
    """Return whether a field holds a credential of fal's, which some clients always send; there is a colon in it.

    Beside a key in `x-gateway-key` that is no second one of ours, and goes no further.
    """
    return name == b"authorization" and b":" in _credential_in(name, value)


def digest_of(text: bytes) -> bytes:
    """Return the 32 bytes under which a key is kept: the SHA-256 of its whole text."""
    return hashlib.sha256(text).digest()


def new_key_text(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a new key, `gwk_<8 id characters>_<32 random base62><6 checksum>`; `random(n)` gives n random bytes."""
    body = f"{PREFIX}{_base62_text(ID_CHARACTERS, random)}_{_base62_text(SECRET_CHARACTERS, random)}"
    return body + checksum_of(body.encode()).decode()


def checksum_of(body: bytes) -> bytes:
    """Return the six base62 characters that end a key: the CRC-32 of all before them."""
    high, low = divmod(zlib.crc32(body), len(_PAIRS))
    return _PAIRS[high // len(_PAIRS)] + _PAIRS[high % len(_PAIRS)] + _PAIRS[low]


def is_mistyped(text: bytes) -> bool:
    """Return whether a text reads like a key of ours, but its checksum is not that of its characters."""
    return (
        len(text) == _KEY_BYTES
        and text.startswith(_PREFIX_BYTES)
        and checksum_of(text[:_BODY_BYTES]) != text[_BODY_BYTES:]
        and text[_SEPARATOR] == ord("_")
        and _BASE62_BYTES.issuperset(text[len(PREFIX) : _SEPARATOR] + text[_SEPARATOR + 1 :])
    )


def _base62_text(length: int, random: Callable[[int], bytes]) -> str:
    """Return so many base62 characters; bytes that would favour the first characters are thrown away."""
    text = ""
    while len(text) < length:
        text += "".join(_BASE62[byte % len(_BASE62)] for byte in random(length) if byte < _FAIR_BYTES)
    return text[:length]
