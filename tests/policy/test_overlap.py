"""Whether globs have a text in common, beside what their expressions match."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.glob import GlobSet
from gateway.policy.overlap import overlap

TEXTS = tuple("/".join(segments) for length in range(1, 7) for segments in product(("a", "b", "ab"), repeat=length))
"""A shortest common text of three of the patterns below is among them: each with a `**` has two segments at most."""


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("**",), True),
        (("fal-ai/**", "fal-ai/flux/dev"), True),
        (("fal-ai/**", "fal-ai"), True),
        (("fal-ai/*", "fal-ai"), False),
        (("fal-ai/flux/**", "fal-ai/kling/**"), False),
        (("*/flux/**", "fal-ai/**", "**/dev"), True),
        (("*/flux/**", "fal-ai/**", "fal-ai/*"), True),
        (("*/flux/*", "fal-ai/**", "fal-ai/*"), False),
        (("a*", "*b", "*c*"), True),
        (("a*b", "b*"), False),
        (("a*/x", "*b/x", "*/y"), False),
        (("**/a", "**/b"), False),
        (("**/a/**", "**/b/**", "a/*"), True),
    ],
)
def test_globs_have_a_text_in_common_or_not(patterns: tuple[str, ...], expected: bool) -> None:  # noqa: FBT001
    """All at once: that each two have one is not enough."""
    assert overlap(*patterns) is expected


def test_each_two_may_have_one_where_all_have_none() -> None:
    """So lists that go together two by two can still shut everybody out."""
    globs = ("a/**", "*/b", "**/b/*")
    assert all(overlap(*pair) for pair in combinations(globs, 2))
    assert not overlap(*globs)


SEGMENTS = st.sampled_from(["*", "a", "b", "a*", "*b", "ab"])
PATTERNS = st.lists(SEGMENTS | st.just("**"), min_size=1, max_size=3).map("/".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(PATTERNS, min_size=2, max_size=3))
def test_the_answer_is_that_of_the_expressions(patterns: list[str]) -> None:
    """A text that all match is there exactly where it is said to be."""
    found = list(TEXTS)
    for pattern in patterns:
        found = list(filter(GlobSet((pattern,)).matches, found))
    assert overlap(*patterns) is bool(found)
