"""Globs of the policy file, compiled into one regular expression that no text can make slow.

The decisions it carries:

* `*` is any run of characters within one segment (a segment that is only `*` has at least one character), `**` is any
  run of segments, also none; so `a/**` matches `a`, `a/` and all below, as in @fal-ai/server-proxy 1.2.1, which asks
  picomatch. All else is literal, `?` too. `**` may also begin or end a word: `x?**` is a word that begins with `x?`
  and whatever follows it. Where picomatch differs, silently or with syntax of its own, the pattern is an error.
* Patterns are judged when they are read and compiled when they are first asked: an expression takes half a
  millisecond, and a policy of a thousand keys is made into rules between two requests (config/ruleset.py).
* A backtracking matcher is exponential in its wildcards. Between two `**` the left-most place at which the segments
  fit is as good as any later one, and so is the first place of a literal between two `*`; so each is an atomic group,
  and matching is linear in the text (times the pattern's length).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_PATTERN_CHARACTERS: Final = 512
MAX_SEGMENTS: Final = 32
MAX_WILDCARDS: Final = 16

_MISTAKES: Final = (
    (re.compile(r"\A\Z"), "is empty; ** stands for anything"),
    (re.compile(r"[^\x21-\x7e]"), "holds a blank, a control or a non-ASCII character, which no URL has"),
    (re.compile(r"\\"), "holds a backslash; nothing needs escaping, ? and [ are literal"),
    (re.compile(r"[{}]"), "holds a brace; alternatives are not expanded, write one pattern for each"),
    (re.compile(r"\Ahttps?://"), "begins with a scheme; patterns are host and path, as in fal.run/**"),
    (re.compile(r"\A/"), "begins with a slash; nothing that it is matched against does"),
    (re.compile(r"\*\*\*"), "holds ***; * is within one segment, ** is any"),
    (re.compile(r"[^/*]\*\*[^/*]"), "has ** within a word; it may stand alone, or begin or end the word"),
)
"""What is wrong with a pattern, and how to say so."""

_ANY_MISTAKE: Final = re.compile("|".join(mistake.pattern for mistake, _ in _MISTAKES))

_SKIP: Final = r"(?:/[^/]*+)*?"
_REST: Final = r"(?:/.*)?"
_END_OF_SEGMENT: Final = r"(?![^/])"


class GlobError(ValueError):
    """A pattern that cannot be meant; the message names the pattern and the mistake."""


class GlobSet:
    """Patterns of which one must fit; without patterns nothing fits."""

    __slots__ = ("_above", "_whole", "patterns")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        """Take patterns that were judged before (`compile_globs` judges them, as do the models of a policy)."""
        self.patterns: Final = patterns
        self._whole: re.Pattern[str] | None = None
        self._above: re.Pattern[str] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GlobSet) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __repr__(self) -> str:
        return f"GlobSet({self.patterns!r})"

    def matches(self, text: str) -> bool:
        """Return whether a pattern fits the whole text."""
        whole = self._whole
        if whole is None:
            whole = self._whole = _any_of([_whole(segments_of(pattern)) for pattern in self.patterns])
        return whole.fullmatch("/" + text) is not None

    def reaches(self, path: str) -> bool:
        """Return whether a pattern fits the path itself, or could fit something below it."""
        above = self._above
        if above is None:
            above = self._above = _any_of([_above(segments_of(pattern)) for pattern in self.patterns])
        return above.fullmatch("/" + path) is not None


def compile_globs(patterns: Sequence[str]) -> GlobSet:
    """Return the patterns as one set; GlobError for the first that cannot be meant."""
    for pattern in patterns:
        segments_of(pattern)
    return GlobSet(tuple(patterns))


def _any_of(expressions: Iterable[str]) -> re.Pattern[str]:
    """Return one expression that fits where one of these does."""
    return re.compile("|".join(expressions) or r"(?!)", re.DOTALL | re.ASCII)


def segments_of(pattern: str) -> list[str]:
    """Return a pattern's segments, `**` always alone in its own; GlobError where the pattern cannot be meant."""
    if _ANY_MISTAKE.search(pattern):
        reason = next(reason for mistake, reason in _MISTAKES if mistake.search(pattern))
        raise GlobError(f"{_shown(pattern)} {reason}")
    segments = [part for segment in pattern.split("/") for part in _detached(segment)]
    if len(pattern) > MAX_PATTERN_CHARACTERS or len(segments) > MAX_SEGMENTS or pattern.count("*") > MAX_WILDCARDS:
        raise GlobError(
            f"{_shown(pattern)} is too large: at most {MAX_PATTERN_CHARACTERS} characters,"
            f" {MAX_SEGMENTS} segments and {MAX_WILDCARDS} asterisks"
        )
    return segments


def _shown(pattern: str) -> str:
    """Return a pattern as a message may show it: quoted, escaped and short."""
    return ascii(pattern if len(pattern) <= MAX_PATTERN_CHARACTERS else pattern[:40] + "…")


def _detached(segment: str) -> list[str]:
    """Return a segment with a `**` at its beginning or end set apart: `x**` is `x*`, and then anything below."""
    if segment == "**" or "**" not in segment:
        return [segment]
    before = ["**"] if segment.startswith("**") else []
    behind = ["**"] if segment.endswith("**") else []
    return [*before, segment.replace("**", "*"), *behind]


def _whole(segments: list[str]) -> str:
    """Return the expression of a whole pattern, for text with a slash in front."""
    first, *others = _runs_of(segments)
    if not others:
        return "".join(map(_segment, first))
    middles = "".join(f"(?>{_SKIP}{''.join(map(_segment, run))}{_END_OF_SEGMENT})" for run in others[:-1] if run)
    last = f"{_SKIP}{''.join(map(_segment, others[-1]))}" if others[-1] else _REST
    return "".join(map(_segment, first)) + middles + last


def _runs_of(segments: list[str]) -> list[list[str]]:
    """Return the runs of segments between the `**`: one more run than there are `**`."""
    runs: list[list[str]] = [[]]
    for segment in segments:
        if segment == "**":
            runs.append([])
        else:
            runs[-1].append(segment)
    return runs


def _above(segments: list[str]) -> str:
    """Return the expression of all paths at which, or below which, a pattern can fit."""
    first, *others = _runs_of(segments)
    expression = _REST if others else ""
    for segment in reversed(first):
        expression = f"{_segment(segment)}{_END_OF_SEGMENT}(?:{expression})?"
    return expression


def _segment(segment: str) -> str:
    """Return the expression of one segment and the slash before it."""
    if segment == "*":
        return "/[^/]++"
    first, *others = map(re.escape, segment.split("*"))
    if not others:
        return "/" + first
    middles = "".join(f"(?>[^/]*?{literal})" for literal in others[:-1])
    return f"/{first}{middles}(?>[^/]*{others[-1]}{_END_OF_SEGMENT})"
