"""One budget's purse in the store, as it is read there (budget_scripts.py has its layout)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_GRANTED, _NET, _SPENT, _JOBS = b"g:", b"n:", b"s:", b"j:"
_STATED: Final = b"p:"


class RedisBudgetTotals:
    """One budget's sums in nanodollars, and what each process holds, by its name (`<gateway>:<pid>`).

    `stated`: where each process's journal ended when it changed the sums last. `counted_ns` and `open_ns` are what is
    spent and held by jobs as the store has them.
    """

    __slots__ = (
        "counted_ns",
        "edition",
        "held_ns",
        "holders",
        "jobs_ns",
        "open_ns",
        "spent_ns",
        "start",
        "stated",
    )

    def __init__(self, row: Mapping[bytes, bytes]) -> None:
        self.start: Final = int(row[b"start"])
        self.edition: Final = int(row[b"edition"])
        self.counted_ns: Final = int(row[b"spent"])
        self.open_ns: Final = int(row[b"jobs"])  # below 0: of jobs whose holds became spent when their process died
        self.spent_ns: Final = self.counted_ns + min(0, self.open_ns)
        self.jobs_ns: Final = max(0, self.open_ns)
        self.held_ns: Final = max(0, int(row[b"held"]))
        self.holders: Final[dict[bytes, int]] = {}
        self.stated: Final[dict[bytes, int]] = {}
        for name, value in row.items():
            kind, rest = name[:2], name[2:]
            if kind in (_GRANTED, _NET):
                self.holders[rest] = self.holders.get(rest, 0) + int(value)
            elif kind in (_SPENT, _JOBS):
                self.holders.setdefault(rest, 0)
                self.stated.setdefault(rest, -1)  # of a process of an earlier release, which does not say
            elif kind == _STATED:
                self.stated[rest] = int(value)


class Statement(NamedTuple):
    """By how much a process changed what is spent, and held by jobs, and where its journal ended then."""

    holder: bytes
    place: int
    spent_ns: int
    jobs_ns: int


def parse_statement(text: bytes) -> Statement:
    """Return what a line beside a purse tells; ValueError for garbage."""
    holder, place, kind, value, known = text.split(b" ")
    change_ns = int(value) - int(known)
    return Statement(holder, int(place), *((change_ns, 0) if kind == b"spent" else (0, change_ns)))
