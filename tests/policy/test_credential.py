"""Gateway keys: their grammar, and who a request's fields say is calling."""

from __future__ import annotations

import hashlib
import re
import string
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import shake_128
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.credential import (
    ANONYMOUS,
    CREDENTIAL_INVALID,
    CREDENTIAL_MISSING,
    Principal,
    checksum_of,
    digest_of,
    identify,
    is_mistyped,
    new_key_text,
)

if TYPE_CHECKING:
    from gateway.http.problem import Problem

NOW = 1_800_000_000.0
WEB = Principal("web", "design", None, None, None)
TRIAL = Principal("trial", "design", NOW, None, None)
OWN = Principal("own", "design", None, None, None)
WEB_KEY, TRIAL_KEY, STRANGE_KEY = (  # the same in each process: they stand in the names of tests
    new_key_text(lambda count, seed=seed: shake_128(seed).digest(count)).encode()  # type: ignore[misc]
    for seed in (b"web", b"trial", b"strange")
)
OWN_KEY = b"a key that the operator brought along"
KEYS = {digest_of(WEB_KEY): WEB, digest_of(TRIAL_KEY): TRIAL, digest_of(OWN_KEY): OWN}


class CountingKeys(Mapping[bytes, Principal]):
    """The table of keys, which counts how often it is asked."""

    def __init__(self) -> None:
        """Start at no question."""
        self.asked = 0

    def __getitem__(self, digest: bytes) -> Principal:
        """Count and answer."""
        self.asked += 1
        return KEYS[digest]

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the digests."""
        return iter(KEYS)

    def __len__(self) -> int:
        """Return how many digests there are."""
        return len(KEYS)


def caller_of(*fields: tuple[bytes, bytes], now: float = NOW - 1, anonymous: bool = False) -> Principal | Problem:
    """Return whom the gateway takes a request with these fields for."""
    return identify([(b"host", b"gateway"), *fields], KEYS, now=now, anonymous=ANONYMOUS if anonymous else None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Key " + WEB_KEY),
        (b"authorization", b"key " + WEB_KEY),
        (b"authorization", b"KEY  " + WEB_KEY),
        (b"authorization", b"Bearer " + WEB_KEY),
        (b"authorization", b"bEARER " + WEB_KEY),
        (b"x-gateway-key", WEB_KEY),
    ],
)
def test_a_key_is_known_in_each_of_its_places(name: bytes, value: bytes) -> None:
    """Key and Bearer in any case, or the field of our own, name the principal."""
    assert caller_of((name, value)) is WEB


def test_a_key_of_another_grammar_is_known_by_its_digest() -> None:
    """Operators may bring keys that do not read like ours."""
    assert caller_of((b"authorization", b"Key " + OWN_KEY)) is OWN


def test_without_a_credential_the_policy_decides() -> None:
    """No credential is an anonymous caller where the policy lets them in, and credential_missing elsewhere."""
    assert caller_of() is CREDENTIAL_MISSING
    assert caller_of(anonymous=True) is ANONYMOUS


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        [(b"authorization", b"Key " + STRANGE_KEY)],
        [(b"authorization", b"Key " + WEB_KEY[:-1] + (b"0" if WEB_KEY[-1:] != b"0" else b"1"))],
        [(b"authorization", b"Key " + WEB_KEY + b" ")],
        [(b"authorization", b"Key " + WEB_KEY.swapcase())],
        [(b"authorization", b"Key")],
        [(b"authorization", b"Key ")],
        [(b"authorization", b"")],
        [(b"authorization", WEB_KEY)],
        [(b"authorization", b"Basic " + WEB_KEY)],
        [(b"authorization", b"Digest username=x")],
        [(b"authorization", b"Key:" + WEB_KEY)],
        [(b"authorization", b"Key \xff\xfe\x00")],
        [(b"authorization", b"\xff\xfe\x00 " + WEB_KEY)],
        [(b"x-gateway-key", b"")],
        [(b"x-gateway-key", b"Key " + WEB_KEY)],
        [(b"x-gateway-key", digest_of(WEB_KEY))],
        [(b"x-gateway-key", b"sha256:" + digest_of(WEB_KEY).hex().encode())],
        [(b"x-gateway-key", WEB_KEY), (b"authorization", b"Key " + WEB_KEY)],
        [(b"x-gateway-key", WEB_KEY), (b"authorization", b"Basic abc")],
        [(b"x-gateway-key", WEB_KEY), (b"x-gateway-key", WEB_KEY)],
        [(b"authorization", b"Key " + WEB_KEY), (b"authorization", b"Bearer " + WEB_KEY)],
        [(b"authorization", b"Key " + WEB_KEY), (b"authorization", b"")],
    ],
)
def test_a_wrong_credential_is_invalid_whoever_may_come(fields: list[tuple[bytes, bytes]], anonymous: bool) -> None:  # noqa: FBT001 (a parameter of the table)
    """Unknown, mistyped, of another scheme, or two at once: one and the same 401, where anonymous callers pass too."""
    assert caller_of(*fields, anonymous=anonymous) is CREDENTIAL_INVALID


@pytest.mark.parametrize("scheme", [b"Key ", b"Bearer "])
def test_a_credential_of_fals_beside_a_key_is_none_of_ours(scheme: bytes) -> None:
    """Some clients of fal overwrite `Authorization` with it, so their key comes in the other field."""
    theirs = (b"authorization", scheme + b"7c1e5a30-0000-4000-8000-0123456789ab:secret")
    assert caller_of((b"x-gateway-key", TRIAL_KEY), theirs) is TRIAL
    assert caller_of(theirs, (b"x-gateway-key", TRIAL_KEY)) is TRIAL
    for fields in ([theirs], [theirs, theirs], [theirs, theirs, (b"x-gateway-key", TRIAL_KEY)]):
        assert caller_of(*fields, anonymous=True) is CREDENTIAL_INVALID


def test_a_key_ends_at_its_hour() -> None:
    """A key is good before expires_at, and from then on answers as an unknown one does."""
    field = (b"authorization", b"Key " + TRIAL_KEY)
    assert caller_of(field, now=NOW - 0.001) is TRIAL
    assert caller_of(field, now=NOW) is CREDENTIAL_INVALID


def test_the_problems_are_what_clients_expect() -> None:
    """Both are 401 with a challenge, and the types of the contract."""
    assert (CREDENTIAL_MISSING.status, CREDENTIAL_MISSING.error_type) == (401, "credential_missing")
    assert (CREDENTIAL_INVALID.status, CREDENTIAL_INVALID.error_type) == (401, "credential_invalid")
    challenge = ((b"www-authenticate", b'Key realm="fal-gateway"'),)
    assert CREDENTIAL_MISSING.fields == CREDENTIAL_INVALID.fields == challenge


@pytest.mark.parametrize("text", [b"a" * 513, b"", WEB_KEY[:20] + b"z" * 31])
def test_hopeless_credentials_are_not_looked_up(text: bytes) -> None:
    """Too long, empty or mistyped: refused without a look-up."""
    keys = CountingKeys()
    refused = identify([(b"x-gateway-key", text)], keys, now=NOW, anonymous=None)
    assert (refused, keys.asked) == (CREDENTIAL_INVALID, 0)


def test_the_longest_credential_is_looked_up() -> None:
    """512 bytes are still a credential."""
    principal = identify([(b"x-gateway-key", b"a" * 512)], {digest_of(b"a" * 512): OWN}, now=NOW, anonymous=None)
    assert principal is OWN


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-gateway-key", b"cookie"]), st.binary()), max_size=3))
def test_any_bytes_in_the_fields_get_an_answer(fields: list[tuple[bytes, bytes]]) -> None:
    """Garbage is a 401 and never an exception."""
    assert caller_of(*fields) in {CREDENTIAL_INVALID, CREDENTIAL_MISSING}


@given(st.integers(1, 3), st.binary(max_size=60))
def test_any_bytes_behind_the_scheme_get_an_answer(spaces: int, text: bytes) -> None:
    """Garbage behind a good scheme is a 401 and never an exception."""
    assert caller_of((b"authorization", b"Key" + b" " * spaces + text)) is CREDENTIAL_INVALID


def test_a_new_key_follows_the_grammar() -> None:
    """A key is its prefix, eight characters of id, 32 random ones and the checksum, and is never the same twice."""
    texts = {new_key_text() for _ in range(50)}
    assert len(texts) == 50
    assert all(re.fullmatch(r"gwk_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}", text) for text in texts)
    assert not any(is_mistyped(text.encode()) for text in texts)


def test_each_character_of_a_key_is_equally_likely() -> None:
    """The 248 byte values that are used give each of the 62 characters four times."""
    blocks = [bytes(range(start, start + 8)) for start in range(0, 248, 8)]
    drawn = "".join(new_key_text(lambda _, block=block: block)[4:12] for block in blocks)  # type: ignore[misc]
    assert set(Counter(drawn).values()) == {4}
    assert len(set(drawn)) == 62


def test_bytes_above_the_fair_range_are_thrown_away() -> None:
    """Of 256 byte values only 248 are four times the 62 characters; the others are drawn again."""
    draws = iter([bytes([255] * 8), bytes([248, 249, 61, 61, 61, 61, 61, 61]), bytes([0] * 8), bytes([61] * 32)])
    assert new_key_text(lambda _: next(draws)).startswith("gwk_zzzzzz00_" + "z" * 32)


def test_the_digest_is_the_one_of_the_policy_file() -> None:
    """A digest is the SHA-256 of the whole key text, as `sha256sum` would print it."""
    assert digest_of(b"gwk_x") == hashlib.sha256(b"gwk_x").digest()


def test_the_checksum_never_changes() -> None:
    """The checksum is part of every key that was ever given out: the CRC-32 in six digits of 0-9, A-Z, a-z."""
    number = zlib.crc32(b"gwk_abcdefgh_")
    digits = [number // 62**power % 62 for power in range(5, -1, -1)]
    assert checksum_of(b"gwk_abcdefgh_") == bytes(
        (string.digits + string.ascii_letters.swapcase()).encode()[digit] for digit in digits
    )
    assert checksum_of(b"gwk_") == b"396d3a"
    assert checksum_of(b"") == b"000000"


@given(st.integers(4, 50), st.sampled_from(b"0Az_!\x00\xff"))
def test_a_typo_is_known_from_a_key_of_another_kind(place: int, other: int) -> None:
    """One wrong base62 character makes a key mistyped; another kind of character makes it no key of ours."""
    text = bytearray(WEB_KEY)
    text[place] = other
    same = bytes(text) == WEB_KEY
    in_grammar = chr(other).isalnum() and other < 128
    assert is_mistyped(bytes(text)) == (in_grammar and not same and place != 12)


@pytest.mark.parametrize("text", [b"", b"gwk_", WEB_KEY[:-1], WEB_KEY + b"0", b"GWK_" + WEB_KEY[4:], OWN_KEY])
def test_what_is_no_key_of_ours_is_not_mistyped(text: bytes) -> None:
    """Only a text that has the whole grammar can be mistyped; all others may be an operator's own."""
    assert not is_mistyped(text)
