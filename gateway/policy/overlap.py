"""Whether one text can match several globs at once.

The decision: globs are followed together, first by segments, then within segments by characters, through the places
at which each of them can be. So the answer is exact, and takes a few steps where wildcards are few. This runs when a
policy is judged, never for a request.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from gateway.policy.glob import segments_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ANY_PATH: Final = "**"
_ANY_CHARACTERS: Final = "*"


def overlap(*patterns: str) -> bool:
    """Return whether there is a text that all patterns match; GlobError where one cannot be meant."""
    starts = sorted((pattern.partition("*")[0].removesuffix("/") for pattern in patterns), key=len)
    if not all(longer.startswith(shorter) for shorter, longer in pairwise(starts)):  # most of those that do not overlap
        return False
    narrow = [segments_of(pattern) for pattern in patterns if pattern != _ANY_PATH]
    return _have_common([list(segments) for segments in narrow], _ANY_PATH, _are_one_segment)


def _are_one_segment(segments: Sequence[str]) -> bool:
    narrow = {segment for segment in segments if segment != _ANY_CHARACTERS}
    return len(narrow) <= 1 or _have_common([list(segment) for segment in narrow], _ANY_CHARACTERS, _are_one_character)


def _are_one_character(characters: Sequence[str]) -> bool:
    return len(set(characters)) <= 1


def _have_common(rows: list[list[str]], any_run: str, are_one: Callable[[Sequence[str]], bool]) -> bool:
    """Return whether all rows can be read along one text, of which `any_run` in a row is any part, also none."""
    ends = tuple(map(len, rows))
    start = (0,) * len(rows)
    seen, waiting = {start}, [start]
    while waiting:
        places = waiting.pop()
        if places == ends:
            return True
        for following in _next_places(rows, places, any_run, are_one):
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return False


def _next_places(
    rows: list[list[str]], places: tuple[int, ...], any_run: str, are_one: Callable[[Sequence[str]], bool]
) -> list[tuple[int, ...]]:
    """Return where the rows can be after one more part of the text, or after the end of a wildcard."""
    heads = [row[place] if place < len(row) else None for row, place in zip(rows, places, strict=True)]
    found = [
        (*places[:rank], places[rank] + 1, *places[rank + 1 :]) for rank, head in enumerate(heads) if head == any_run
    ]
    parts = [head for head in heads if head is not None and head != any_run]
    if parts and None not in heads and are_one(parts):
        found.append(tuple(place + (head != any_run) for place, head in zip(places, heads, strict=True)))
    return found
