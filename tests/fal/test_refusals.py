"""Which answers of fal's say that it will not serve us, and why."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from gateway.emulator.answers import LOCKED
from gateway.fal.refusals import FIRST_REFUSED, refused

BODY = json.dumps({"detail": LOCKED}).encode()
# Without the time of its making: it is part of a test's name, which all of pytest's processes must make the same.
GZIPPED = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (429, b"", "rate_limited"),
        (401, b"", "credential_rejected"),
        (402, BODY, "other"),
        (403, BODY, "account_locked"),
        (403, b'{"detail": "USER IS LOCKED. Reason: Fraud."}', "account_locked"),
        (403, GZIPPED, "account_locked"),
        (403, zlib.compress(BODY), "account_locked"),
        (403, GZIPPED[:20], "other"),
        (403, b"\x1f\x8bno gzip", "other"),
        (403, gzip.compress(b"x" * 50_000_000, mtime=0), "other"),
        (403, b'{"detail": "Access denied"}', "other"),
        (403, b"", "other"),
        (403, b"x" * 4_096 + BODY, "other"),
    ],
)
def test_reasons(status: int, content: bytes, reason: str) -> None:
    """By the status, and for 403 by fal's own sentence within the first 4 KiB, coded or not."""
    found = refused(status)
    assert found is not None
    found.take([content])
    assert found.reason == reason


def test_the_sentence_may_come_in_pieces() -> None:
    """An answer is read as it comes."""
    found = refused(403)
    assert found is not None
    for at in range(0, len(BODY), 7):
        found.take([BODY[at : at + 3], BODY[at + 3 : at + 7]])
    found.take([b"x" * 100_000])
    assert found.reason == "account_locked"


@pytest.mark.parametrize("status", [200, 202, 204, 301, 400, 404, 405, 408, 409, 413, 422, 499, 500, 503])
def test_what_is_no_refusal(status: int) -> None:
    """Good answers, what a caller has asked wrongly, and what is broken at fal."""
    assert refused(status) is None


def test_no_refusal_lies_below_the_first() -> None:
    """The one compare that a good answer pays lets none of them through."""
    assert [status for status in range(FIRST_REFUSED) if refused(status)] == []
