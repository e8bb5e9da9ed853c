"""What a case is: a question that is put to several systems in turn, and the figures that answer it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from benchmarks.load.stale import PostIds
    from benchmarks.origin import Origin
    from benchmarks.running import Running
    from benchmarks.systems import System

Figures = dict[str, float]
"""Figures by the names of their columns; infinity: it never happened, NaN: it does not apply."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done: numbers, and durations in seconds. The defaults are those of the published table."""

    rounds: int = 3
    post_seconds: float = 3.0
    warm_seconds: float = 1.0
    bulk_bytes: int = 50_000_000
    readers: int = 200
    reader_seconds: float = 8.0
    streams: int = 1000
    stream_seconds: float = 6.0
    keys: int = 1000
    held: int = 2000
    leaves: int = 5
    stale_posts: int = 400
    dying_posts: int = 50
    soak_seconds: float = 60.0
    fresh: bool = True


QUICK = Extent(
    rounds=1,
    post_seconds=1.0,
    warm_seconds=0.0,
    bulk_bytes=5_000_000,
    readers=50,
    reader_seconds=3.0,
    streams=100,
    stream_seconds=2.0,
    keys=100,
    held=200,
    leaves=1,
    stale_posts=40,
    dying_posts=5,
    soak_seconds=10.0,
    fresh=False,
)
"""A look whether everything still works, in about two minutes; its figures mean little."""


@dataclass(frozen=True, slots=True)
class Stage:
    """All that a measurement needs: a system that runs, the origin behind it, how much to do."""

    running: Running
    origin: Origin
    extent: Extent
    ids: PostIds


Measure = Callable[[Stage], Figures]


@dataclass(frozen=True, slots=True)
class Column:
    """A figure in a table. `better` says which way is better, and so whether a ratio to the gateway is shown."""

    key: str
    head: str
    digits: int = 0
    better: Literal["more", "less", ""] = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a case: which system, measured how; `warm` is done once before the first round."""

    label: str
    system: System
    measure: Measure
    warm: Measure | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A table. `how` says what is done; `ratio` is the column whose ratio to the gateway's is shown.

    `group` names the cases that may share started systems; `repeats`: whether it is measured in every round.
    """

    key: str
    title: str
    how: str
    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]
    group: str
    ratio: str = ""
    repeats: bool = True
