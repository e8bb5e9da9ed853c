"""One purchase as the ledger knows it, how it goes through a file as a line, and how two tellings of it become one.

The decision: every line holds the whole row, and a row only climbs: held, held under fal's request id, released,
unknown, settled, reconciled. So lines may come twice, in any order, and from several gateways, and the row is the same
in the end; nobody has to remember what was already said. Of two tellings of the same height the first one stays, so
that a job whose result is fetched twice is settled once. A request id of fal's, once known, is kept.

A line begins with the checksum of what follows, so that what a killed writer left half-written is known as such.
Fields are only ever added at the end, and a reader takes those that it knows: an older release that adopts a newer
one's journal must not lose its money.
"""

from __future__ import annotations

import zlib
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

HELD: Final = "held"
RELEASED: Final = "released"
UNKNOWN: Final = "unknown"
SETTLED: Final = "settled"
RECONCILED: Final = "reconciled"
CHARGED: Final = (UNKNOWN, SETTLED, RECONCILED)
"""The states in which a purchase counts as spent."""

MOST_NS: Final = 10**15
"""A million dollars for one request: more is a garbled figure, and counts as this much, so that a budget closes. The
sum of a column of 64-bit integers holds 9,223 of them."""

_HEIGHTS: Final = MappingProxyType({HELD: 0, RELEASED: 2, UNKNOWN: 3, SETTLED: 4, RECONCILED: 5})
_HEIGHT_OF_BOUND: Final = 1
_SOURCES: Final = frozenset(("exact", "estimated", "unknown", "reconciled"))
_LONGEST_TEXT: Final = 4_096
_MOST_MICROSECONDS: Final = 2**53  # the year 2255
_MOST_DIGITS: Final = 40


class Entry(NamedTuple):
    """The state of one purchase. Money is in nano-dollars, moments are in microseconds since the epoch, UTC.

    `status` is held, released, unknown, settled or reconciled; `kind` is run, stream or submit; `source` says what the
    figures come from: exact, estimated, unknown or reconciled. `units` and `unit_price` are decimal texts. None stands
    for what is not known: no `unit_price` is an unpriced endpoint, and a `cost_ns` that is not known is never 0.
    """

    id: str
    status: str
    team: str
    key: str
    endpoint: str
    kind: str
    fal_request_id: str | None
    admitted_at_us: int
    changed_at_us: int
    units: str | None
    unit: str | None
    unit_price: str | None
    estimate_ns: int | None
    cost_ns: int | None
    source: str

    def to_line(self) -> bytes:
        """Return the line of this state, with its checksum before it and its line feed behind."""
        if (self.cost_ns or 0) > MOST_NS or (self.estimate_ns or 0) > MOST_NS:
            return self._replace(cost_ns=_bounded(self.cost_ns), estimate_ns=_bounded(self.estimate_ns)).to_line()
        try:
            body = orjson.dumps(list(self))
        except TypeError:  # a lone surrogate out of an origin's JSON
            return self._cleaned().to_line()
        if b"\\u0000" in body and any("\0" in field for field in self if isinstance(field, str)):
            return self._cleaned().to_line()
        return b"%08x %b\n" % (zlib.crc32(body), body)

    def _cleaned(self) -> Entry:
        """Return it with texts that UTF-8 and PostgreSQL can carry: neither lone surrogates nor NUL."""
        return Entry(*[_clean(field) if isinstance(field, str) else field for field in self])  # type: ignore[arg-type]


def from_line(line: bytes) -> Entry | None:
    """Return the state that a line tells; None where it is torn or garbage. The line feed may be left off."""
    checksum, blank, body = line.rstrip(b"\n").partition(b" ")
    if not blank or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, list) or len(fields) < len(_CHECKS):
        return None
    count = len(_CHECKS)
    known = fields[:count]
    for place in _FIGURES:
        known[place] = known[place] if _is_figure(known[place]) else None
    if not all(check(field) for check, field in zip(_CHECKS, known, strict=True)):
        return None
    return Entry(*known)


def height(entry: Entry) -> int:
    """Return how far up a state is: only what is higher changes a row."""
    if entry.status == HELD and entry.fal_request_id is not None:
        return _HEIGHT_OF_BOUND
    return _HEIGHTS[entry.status]


def merged(old: Entry, new: Entry) -> Entry:
    """Return the one state that two tellings of the same purchase make; `old` itself where `new` changes nothing."""
    taken = new if height(new) > height(old) else old
    if taken.fal_request_id is not None:
        return taken
    known = old.fal_request_id if new.fal_request_id is None else new.fal_request_id
    return taken if known is None else taken._replace(fal_request_id=known)


def folded(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return one state for each purchase that the entries tell of, by id."""
    rows: dict[str, Entry] = {}
    for entry in entries:
        known = rows.get(entry.id)
        rows[entry.id] = entry if known is None else merged(known, entry)
    return rows


def _bounded(amount_ns: int | None) -> int | None:
    return None if amount_ns is None else min(amount_ns, MOST_NS)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and "\0" not in value


def _is_name(value: object) -> bool:
    return value is None or _is_text(value)


def _is_status(value: object) -> bool:
    return isinstance(value, str) and value in _HEIGHTS


def _is_source(value: object) -> bool:
    return isinstance(value, str) and value in _SOURCES


def _is_moment(value: object) -> bool:
    return _is_whole(value, _MOST_MICROSECONDS)


def _is_amount(value: object) -> bool:
    return value is None or _is_whole(value, MOST_NS)


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_figure(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, str) or len(value) > _MOST_DIGITS:
        return False
    try:
        figure = Decimal(value)
    except InvalidOperation:
        return False
    return figure.is_finite() and not figure.is_signed() and abs(figure.adjusted()) <= _MOST_DIGITS


_CHECKS: Final = (
    *(_is_text, _is_status, _is_text, _is_text, _is_text, _is_text, _is_name, _is_moment, _is_moment),
    *(_is_figure, _is_name, _is_figure, _is_amount, _is_amount, _is_source),
)
"""For each field whether a database can take it: one row that it refuses would hold up all those behind."""

_FIGURES: Final = (9, 11)
"""Places of `units` and `unit_price`: what an origin calls a quantity and is none must not cost the row its money."""
