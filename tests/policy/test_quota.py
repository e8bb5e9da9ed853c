"""Limits as values: what they are called in the store and before callers, their share, their lines."""

from __future__ import annotations

from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.quota import Decision, Limit, LimitSet, granted_lines, quota_exceeded

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,62}", fullmatch=True)
OWNERS = st.sampled_from(["key/web", "team/design", "anonymous"])
LARGEST = 999_999_999_999_999


def submits(**more: Any) -> Limit:  # noqa: ANN401 - whatever a limit may have
    """Return a limit of 60 requests a minute."""
    return Limit("submits", "key/web", "requests", **{"quota": 60, "window": 60.0, **more})


def parallel(**more: Any) -> Limit:  # noqa: ANN401 - whatever a limit may have
    """Return a limit of 8 at once."""
    return Limit("parallel", "key/web", "concurrent-requests", **{"quota": 8, "window": 0.0, **more})


def verdict(*remaining: int, waits: float = 0.5) -> Decision:
    """Return a grant with so much left of each limit."""
    made = Decision()
    made.remaining = list(remaining)
    made.waits = [waits] * len(remaining)
    return made


def items_in(line: bytes, name: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return the items of a field line's list."""
    assert line.startswith(name + b": ")
    assert line.endswith(b"\r\n")
    items: Any = http_sf.parse(line[len(name) + 2 : -2], tltype="list")
    return [(str(item), dict(parameters)) for item, parameters in items]


def test_a_limit_is_known_by_owner_name_and_unit() -> None:
    """A new quota goes on where the old one was; another owner, name or unit begins anew."""
    assert submits().store_name == submits(quota=7, window=3.0, burst=1).store_name
    others = [
        Limit("submits", "team/web", "requests", quota=60, window=60.0),
        Limit("polls", "key/web", "requests", quota=60, window=60.0),
        Limit("submits", "key/web", "content-bytes", quota=60, window=60.0),
    ]
    assert len({limit.store_name for limit in [submits(), *others]}) == 4


def test_limits_are_equal_by_all_that_they_say() -> None:
    """Two readings of one row are equal, and a change of any of its values is seen."""
    assert submits() == submits()
    assert hash(submits()) == hash(submits())
    changed = [submits(quota=61), submits(window=61.0), submits(burst=1), submits(max_wait=1.0), submits(shadow=True)]
    assert all(limit != submits() for limit in changed)
    assert LimitSet("a", [submits()]) == LimitSet("a", [submits()])
    assert LimitSet("a", [submits()]) != LimitSet("a", [parallel()])


@given(st.lists(st.tuples(OWNERS, NAMES), max_size=12, unique=True))
def test_every_limit_has_a_name_of_its_own(rows: list[tuple[str, str]]) -> None:
    """Whatever a key and its team call their limits, callers never read one name twice."""
    limits = LimitSet("", [Limit(name, owner, "requests", quota=1, window=1.0) for owner, name in rows])
    assert len(set(limits.names)) == len(rows)
    if rows:
        assert limits.names[0] == rows[0][1]


def test_a_name_that_looks_like_the_teams_is_told_apart() -> None:
    """A key's limit called `team.submits` and its team's `submits` do not meet."""
    rows = [("key/web", "submits"), ("key/web", "team.submits"), ("team/design", "submits")]
    limits = LimitSet("", [Limit(name, owner, "requests", quota=1, window=1.0) for owner, name in rows])
    assert limits.names == ("submits", "team.submits", "team.team.submits")


@given(st.lists(st.tuples(NAMES, st.integers(1, LARGEST), st.integers(1, 31_622_400)), min_size=1, max_size=5))
def test_lines_are_structured_fields(rows: list[tuple[str, int, int]]) -> None:
    """Whatever a policy allows, both lines are lists by RFC 9651, item for item."""
    limits = LimitSet("", [Limit(name, "key/web", "requests", quota=q, window=float(w)) for name, q, w in rows])
    policy, told = granted_lines(limits, verdict(*[quota - 1 for _, quota, _ in rows]))
    named = list(limits.names)
    assert items_in(policy, b"RateLimit-Policy") == [
        (name, {"q": q, "w": w}) for name, (_, q, w) in zip(named, rows, strict=True)
    ]
    assert items_in(told, b"RateLimit") == [
        (name, {"r": q - 1, "t": 1}) for name, (_, q, _) in zip(named, rows, strict=True)
    ]


def test_what_has_no_time_is_told_none() -> None:
    """Nobody knows when a slot comes free."""
    _, told = granted_lines(LimitSet("", [parallel()]), verdict(3, waits=-1.0))
    assert items_in(told, b"RateLimit") == [("parallel", {"r": 3})]


def test_the_shadow_is_not_told() -> None:
    """Limits that are not enforced stand in neither line; alone, there are no lines."""
    limits = LimitSet("", [submits(shadow=True), parallel()])
    policy, told = granted_lines(limits, verdict(1, 2))
    assert [name for name, _ in items_in(policy, b"RateLimit-Policy")] == ["parallel"]
    assert [name for name, _ in items_in(told, b"RateLimit")] == ["parallel"]
    assert granted_lines(LimitSet("", [submits(shadow=True)]), verdict(1)) == ()


@pytest.mark.parametrize(("wait", "told"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (59.5, 60)])
def test_retry_after_is_whole_and_at_least_one(wait: float, told: int) -> None:
    """Seconds are rounded up, never to zero; RateLimit has the same moment."""
    refused = Decision()
    refused.granted, refused.refused_by, refused.retry_after = False, 0, wait
    problem = quota_exceeded(LimitSet("", [submits()]), refused)
    fields = dict(problem.fields)
    assert (problem.status, problem.error_type) == (429, "quota_exceeded")
    assert (fields[b"retry-after"], fields[b"ratelimit"]) == (b"%d" % told, b'"submits";r=0;t=%d' % told)
    assert fields[b"ratelimit-policy"] == b'"submits";q=60;w=60'
    assert "limit submits of key web" in problem.detail


# -- shares -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10_000), st.integers(1, 100_000), st.integers(1, 10_000), st.integers(1, 50))
def test_shares_of_a_rate_make_the_rate(quota: int, window: int, burst: int, parts: int) -> None:
    """All shares together let no more through than the limit, but for the one that each has to have."""
    whole = submits(quota=quota, window=float(window), burst=burst)
    share = whole.share(parts)
    assert parts * share.quota / share.window == pytest.approx(quota / window)
    assert share.burst >= 1
    assert parts * share.burst <= max(burst, parts)
    assert share.store_name == whole.store_name


@given(st.integers(1, 10_000), st.integers(1, 50))
def test_shares_of_slots_make_the_slots(quota: int, parts: int) -> None:
    """The same of slots."""
    share = parallel(quota=quota).share(parts)
    assert share.burst >= 1
    assert parts * share.burst <= max(quota, parts)


def test_a_share_is_what_it_was_asked_for() -> None:
    """Alone the whole; the share of a set is remembered, and follows when the number changes."""
    limits = LimitSet("design", [submits(), parallel()])
    assert limits.share(1) is limits
    assert limits.share(2) is limits.share(2)
    assert [limit.burst for limit in limits.share(2).limits] == [30, 4]
    assert [limit.burst for limit in limits.share(4).limits] == [15, 2]
    assert limits.share(1) is limits
    assert limits.share(4).tag == "design"
    assert submits().share(1) == submits()


@pytest.mark.parametrize("shadow", [False, True])
def test_a_share_keeps_what_is_not_shared_out(shadow: bool) -> None:  # noqa: FBT001 (a table of tests)
    """How long a call may wait, and whether a limit is enforced, are the same in each part."""
    share = submits(shadow=shadow, max_wait=1.5).share(3)
    assert (share.shadow, share.max_wait) == (shadow, 1.5)
    assert parallel(shadow=shadow, max_wait=1.5).share(3).shadow is shadow
