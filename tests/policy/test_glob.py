"""Globs of the policy: what they fit, what is an error, and that no text makes them slow."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.glob import GlobError, compile_globs

FITS = [
    (
        "fal.run/**",
        ["fal.run", "fal.run/", "fal.run/a", "fal.run/a/b?x=1/2"],
        ["fal.runx/a", "xfal.run/a", "fal-run/a"],
    ),
    ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "a//b", "a/b/b"], ["a", "ab", "a/bb", "a/xb", "a/b/"]),
    ("**/b", ["b", "a/b", "/b", "a/a/b"], ["a", "ab", "b/"]),
    ("**", ["", "a", "a/b", "/", "a\nb"], []),
    ("a/*", ["a/b", "a/.x", "a/b?c=d"], ["a", "a/", "a/b/c", "a/b/"]),
    ("*/b", ["a/b"], ["/b", "b", "a/a/b"]),
    ("a/f*", ["a/f", "a/fl"], ["a/", "a/f/", "a/f/l"]),
    ("a/*-x", ["a/-x", "a/b-x", "a/b-x-x"], ["a/x", "a/b/-x", "a/b-xy"]),
    ("a/f**", ["a/f", "a/f/", "a/fl/x", "a/f/x"], ["a/", "a/g"]),
    ("**.run/a", ["fal.run/a", "x/fal.run/a", ".run/a"], ["fal.ru/a", "fal.run/b"]),
    ("a?b", ["a?b"], ["ab", "axb", "b"]),
    ("a.b[c]+(d)", ["a.b[c]+(d)"], ["axb[c]+(d)", "a.bc+(d)"]),
    ("a/", ["a/"], ["a", "a//"]),
    ("a", ["a"], ["a/", "A", "aa", "a\n", ""]),
    ("r/up/init?t=*", ["r/up/init?t=", "r/up/init?t=v3"], ["r/up/init", "r/up/init?t=a/b"]),
    ("r/up/init?**", ["r/up/init?", "r/up/init?a=b/c"], ["r/up/init", "r/up/init/a"]),
]


@pytest.mark.parametrize(("pattern", "clamped", "others"), FITS)
def test_a_pattern_fits_what_its_wildcards_say(pattern: str, clamped: list[str], others: list[str]) -> None:
    """`*` stays within a segment, `**` is any segments or none, all else is literal, and the whole text counts."""
    globs = compile_globs([pattern])
    assert [text for text in clamped if not globs.matches(text)] == []
    assert [text for text in others if globs.matches(text)] == []


def test_one_fitting_pattern_is_enough() -> None:
    """A set fits where any of its patterns does, and keeps its patterns as they were written."""
    globs = compile_globs(["a/*", "b", "c/**"])
    assert [text for text in ("a/x", "b", "c/x/y", "a", "bb", "d") if globs.matches(text)] == ["a/x", "b", "c/x/y"]
    assert globs.patterns == ("a/*", "b", "c/**")


def test_a_set_without_patterns_fits_nothing() -> None:
    """What an empty list means is the policy's to say; as a set it admits nothing."""
    assert not compile_globs([]).matches("")
    assert not compile_globs([]).reaches("a/b")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "empty"),
        ("a b", "blank"),
        ("a\tb", "blank"),
        ("fäl/x", "non-ASCII"),
        (r"initiate\?x", "backslash"),
        ("{a,b}/c", "brace"),
        ("https://fal.run/**", "scheme"),
        ("/fal-ai/**", "begins with a slash"),
        ("a/***", "***"),
        ("a**b", "within a word"),
        ("a/b**c/d", "within a word"),
        ("a" * 513, "too large"),
        ("a/" * 32 + "b", "too large"),
        ("*a" * 17, "too large"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_an_error(pattern: str, reason: str) -> None:
    """What could never fit, or is read otherwise by the JavaScript package, is refused with its reason."""
    with pytest.raises(GlobError, match=reason.replace("*", r"\*")):
        compile_globs(["fine", pattern])


@pytest.mark.parametrize(
    ("pattern", "reached", "others"),
    [
        (
            "fal-ai/flux/dev",
            ["fal-ai", "fal-ai/flux", "fal-ai/flux/dev"],
            ["fal-ai/fl", "fal-ai/fluxx", "fal-ai/flux/de"],
        ),
        ("fal-ai/flux/**", ["fal-ai/flux", "fal-ai/flux/x"], ["fal-ai/other"]),
        ("fal-ai/*", ["fal-ai/flux"], ["other/flux", "fal-ai/flux/dev"]),
        ("*/flux/dev", ["fal-ai/flux"], ["fal-ai/dev"]),
        ("**/dev", ["fal-ai/flux", "x"], []),
        ("fal-ai/f**", ["fal-ai/flux", "fal-ai/f/x"], ["fal-ai/g"]),
        ("fal-ai", ["fal-ai"], ["fal-ai/flux"]),
        ("other/**", [], ["fal-ai/flux", "otherx/flux"]),
    ],
)
def test_a_pattern_reaches_the_paths_above_what_it_fits(pattern: str, reached: list[str], others: list[str]) -> None:
    """A path is reached if the pattern fits it, or could fit something below it."""
    globs = compile_globs([pattern])
    assert [path for path in reached if not globs.reaches(path)] == []
    assert [path for path in others if globs.reaches(path)] == []


def fits(pattern: list[str], text: list[str], *, above: bool) -> bool:
    """Return by plain search whether segments fit; `above`: whether they, or something below them, could."""
    if not text:
        return all(segment == "**" for segment in pattern) or above
    if not pattern:
        return False
    if pattern[0] == "**":
        return fits(pattern[1:], text, above=above) or fits(pattern, text[1:], above=above)
    return word_fits(pattern[0], text[0]) and fits(pattern[1:], text[1:], above=above)


def word_fits(pattern: str, word: str) -> bool:
    """Return by plain search whether one segment fits; an asterisk that is all of it wants a character."""
    return word != "" if pattern == "*" else letters_fit(pattern, word)


def letters_fit(pattern: str, letters: str) -> bool:
    """Return whether what is left of a segment fits what is left of its pattern; an asterisk may be nothing."""
    if not pattern:
        return not letters
    if pattern[0] == "*":
        return any(letters_fit(pattern[1:], letters[start:]) for start in range(len(letters) + 1))
    return letters[:1] == pattern[0] and letters_fit(pattern[1:], letters[1:])


WORDS = st.one_of(
    st.just("**"),
    st.text("ab", min_size=1, max_size=3),
    st.lists(st.sampled_from(["a", "b", "*", "a*"]), min_size=1, max_size=4).map("".join),
).map(lambda word: word if word == "**" else word.replace("**", "*a*").replace("**", "*a*"))


@st.composite
def patterns_and_texts(draw: st.DrawFn) -> tuple[str, str]:
    """Return a pattern, and a text that fits it or misses by little: wildcards filled in, a piece of it perhaps cut."""
    pattern = draw(st.lists(WORDS, min_size=1, max_size=5).map("/".join))
    filled = [draw(st.text("ab/", max_size=6)) if part == "**" else part for part in pattern.split("/")]
    letters = [draw(st.text("ab", max_size=3)) if letter == "*" else letter for letter in "/".join(filled)]
    text = "".join(letters)
    cut = draw(st.integers(0, len(text)))
    return pattern, text[:cut] + text[cut + draw(st.integers(0, 2)) :]


@settings(max_examples=500, deadline=None)
@given(patterns_and_texts())
def test_a_match_is_what_plain_search_finds(pair: tuple[str, str]) -> None:
    """Taking the left-most fit between wildcards loses no match and wins none, against trying everything."""
    pattern, text = pair
    globs = compile_globs([pattern])
    segments = text.split("/")
    assert globs.matches(text) == fits(pattern.split("/"), segments, above=False)
    assert globs.reaches(text) == fits(pattern.split("/"), segments, above=True)


HOSTILE = [
    ("**/a/**/a/**/a/**/a/**/b", "a/"),
    ("**/*a*a*a*a*a/b", "a"),
    ("*a*a*a*a*a*a*a*b", "a"),
    ("*a*a*a*a*a*a*a*b/**", "a"),
    ("**/*a*/**/*a*/**/*a*b", "a/"),
    ("**a/**a/**a/**b", "aa/"),
    ("a**/a**/a**/a**/b", "a/"),
]


def seconds_for(pattern: str, text: str) -> float:
    """Return the least seconds that both kinds of match took in seven tries."""
    globs = compile_globs([pattern])
    tries = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(5):
            assert not globs.matches(text)
            globs.reaches(text)
        tries.append(time.perf_counter() - start)
    return min(tries)


@pytest.mark.parametrize(("pattern", "word"), HOSTILE)
def test_the_time_to_match_grows_no_faster_than_the_text(pattern: str, word: str) -> None:
    """Eight times the text takes about eight times as long, where squares would be 64, for many wildcards too."""
    short, long = (word * (size // len(word)) + "c" for size in (500, 4000))
    assert seconds_for(pattern, long) < 24 * seconds_for(pattern, short)
