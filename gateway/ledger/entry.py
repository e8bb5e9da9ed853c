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

from decimal import Decimal, InvalidOperation
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

import orjson
from orjson import dumps

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
"""A million dollars for one request: more is a garbled figure, and is not charged (policy/price.py)."""

_HEIGHTS: Final = MappingProxyType({HELD: 0, RELEASED: 2, UNKNOWN: 3, SETTLED: 4, RECONCILED: 5})
_HEIGHT_OF_BOUND: Final = 1
_SOURCES: Final = frozenset(("exact", "estimated", "unknown", "reconciled"))
_LONGEST_TEXT: Final = 4_096
LONGEST_ENDPOINT: Final = 256
"""A caller may make up an endpoint of 4 KiB; a row has no more of it than this, or few requests would fill the disk."""

_DIGEST_BYTES: Final = 16
_MOST_MICROSECONDS: Final = 2**53  # the year 2255
_MOST_DIGITS: Final = 40
_QUANTITIES_KEPT: Final = 1_024
_OCTETS: Final = [b"%02x" % octet for octet in range(256)]  # of checksums: every request has two lines

_FIELDS: Final = 15
_STATUS: Final = 1
_SOURCE: Final = 14
_TEXTS: Final = (0, _STATUS, 2, 3, 4, 5, _SOURCE)
_NAMES: Final = (6, 10)
_MOMENTS: Final = (7, 8)
_AMOUNTS: Final = (12, 13)
_FIGURES: Final = (9, 11)
"""Places of `units` and `unit_price`: what an origin calls a quantity and is none must not cost the row its money."""


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
        form = LineForm(self.team, self.key, self.endpoint, self.kind, unit=self.unit, unit_price=self.unit_price)
        return form.line(
            self.id,
            self.status,
            self.fal_request_id,
            self.admitted_at_us,
            self.changed_at_us,
            units=self.units,
            estimate_ns=self.estimate_ns,
            cost_ns=self.cost_ns,
            source=self.source,
        )


class LineForm:
    """Makes the lines of purchases that differ in a few fields only: the others are JSON already.

    Texts come out as UTF-8 and PostgreSQL can carry them, without lone surrogates and NUL.
    """

    __slots__ = ("_names", "_price")

    def __init__(  # noqa: PLR0913 (fields of `Entry`)
        self, team: str, key: str, endpoint: str, kind: str, *, unit: str | None, unit_price: str | None
    ) -> None:
        self._names: Final = _fragment(team, key, bounded_endpoint(endpoint), kind)
        self._price: Final = _fragment(unit, unit_price)

    def line(  # noqa: PLR0913 (fields of `Entry`)
        self,
        purchase_id: str,
        status: str,
        fal_request_id: str | None,
        admitted_at_us: int,
        changed_at_us: int,
        *,
        units: str | None,
        estimate_ns: int | None,
        cost_ns: int | None,
        source: str,
    ) -> bytes:
        """Return a line, with its checksum before it and its line feed behind."""
        if fal_request_id is not None:
            fal_request_id = _clean(fal_request_id)
        estimate_ns, cost_ns = _bounded(estimate_ns), _bounded(cost_ns)
        body = dumps(
            (
                purchase_id,
                status,
                self._names,
                fal_request_id,
                admitted_at_us,
                changed_at_us,
                units,
                self._price,
                estimate_ns,
                cost_ns,
                source,
            )
        )
        checksum, octets = crc32(body), _OCTETS
        high, low = checksum >> 16, checksum & 0xFFFF
        return b"".join(
            (octets[high >> 8], octets[high & 0xFF], octets[low >> 8], octets[low & 0xFF], b" ", body, b"\n")
        )


def bounded_endpoint(endpoint: str) -> str:
    """Return an endpoint as rows have it: one that is too long is cut, and ends with its digest."""
    if len(endpoint) <= LONGEST_ENDPOINT:
        return endpoint
    digest = blake2b(endpoint.encode("utf-8", "replace"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{endpoint[: LONGEST_ENDPOINT - len(digest) - 1]}~{digest}"


def _fragment(*texts: str | None) -> orjson.Fragment:
    """Return elements of a JSON array, without its brackets."""
    return orjson.Fragment(dumps([None if text is None else _clean(text) for text in texts])[1:-1])


def from_line(line: bytes) -> Entry | None:
    """Return the state that a line tells; None where it is torn or garbage. The line feed may be left off."""
    checksum, blank, body = line.rstrip(b"\n").partition(b" ")
    if not blank or checksum != crc32(body).to_bytes(4, "big").hex().encode():
        return None
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, list) or len(fields) < _FIELDS:
        return None
    known: list[object] = fields[:_FIELDS]
    for place in _FIGURES:
        if known[place] is not None and not _is_figure(known[place]):
            known[place] = None
    # `find`, since `in` makes and forgets an exception: so every text is short, and has no NUL.
    is_plain = len(body) <= _LONGEST_TEXT and body.find(b"\\u0000") < 0
    return Entry._make(known) if _is_sound(known, is_plain=is_plain) else None


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
    return amount_ns if amount_ns is None or amount_ns <= MOST_NS else MOST_NS


def _clean(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _is_sound(fields: list[object], *, is_plain: bool) -> bool:
    """Return whether a database can take it: one row that it refuses would hold up all those behind."""
    for place in _TEXTS:
        if not isinstance(fields[place], str):
            return False
    for place in _NAMES:
        if fields[place] is not None and not isinstance(fields[place], str):
            return False
    for place in _MOMENTS:
        if not _is_whole(fields[place], _MOST_MICROSECONDS):
            return False
    for place in _AMOUNTS:
        if fields[place] is not None and not _is_whole(fields[place], MOST_NS):
            return False
    return fields[_STATUS] in _HEIGHTS and fields[_SOURCE] in _SOURCES and (is_plain or _are_short(fields))


def _are_short(fields: list[object]) -> bool:
    return all(len(text) <= _LONGEST_TEXT and "\0" not in text for text in fields if isinstance(text, str))


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_figure(value: object) -> bool:
    return isinstance(value, str) and _is_quantity(value)


@lru_cache(maxsize=_QUANTITIES_KEPT)
def _is_quantity(text: str) -> bool:
    if len(text) > _MOST_DIGITS:
        return False
    try:
        figure = Decimal(text)
    except InvalidOperation:
        return False
    return figure.is_finite() and not figure.is_signed() and abs(figure.adjusted()) <= _MOST_DIGITS
