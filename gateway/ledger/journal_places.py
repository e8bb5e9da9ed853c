"""Up to which place each journal is in the ledger, written in the transaction of the rows that it told of.

The decision: whoever reads sums reads these places in the same statement, and so knows which lines the sums count. A
place never goes back: a ledger process that was killed reads some lines again, whose rows are there already. A journal
that was applied to its end is taken out, and so are those of a gateway that left no watermark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import and_, case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.tables import JOURNALS, WATERMARKS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.engine import Connection

_PLACE: Final = JOURNALS.c

Name = tuple[str, str]
"""Of a journal: its gateway's, and its own among that one's."""


class Places(NamedTuple):
    """Where journals are once some rows are in the ledger, and which have ended there."""

    reached: Mapping[Name, int]
    ended: Collection[Name]


def write(connection: Connection, places: Places) -> None:
    """Write places, within the transaction of the rows, in the order of their names."""
    rows = [
        {"gateway": gateway, "journal": journal, "place": place}
        for (gateway, journal), place in sorted(places.reached.items())
    ]
    if rows:
        connection.execute(_WRITE_SQLITE if connection.dialect.name == "sqlite" else _WRITE_POSTGRESQL, rows)
    if places.ended:
        names = [and_(_PLACE.gateway == gateway, _PLACE.journal == journal) for gateway, journal in places.ended]
        connection.execute(delete(JOURNALS).where(or_(*names)))


def forget(connection: Connection) -> None:
    """Delete the places of gateways without a watermark; one that lives writes its own again with its next rows."""
    connection.execute(delete(JOURNALS).where(_PLACE.gateway.not_in(select(WATERMARKS.c.gateway))))


def _writing(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    place = insert.excluded.place
    later = case((_PLACE.place > place, _PLACE.place), else_=place)
    return insert.on_conflict_do_update(index_elements=[_PLACE.gateway, _PLACE.journal], set_={"place": later})


_WRITE_SQLITE: Final = _writing(sqlite.insert(JOURNALS))
_WRITE_POSTGRESQL: Final = _writing(postgresql.insert(JOURNALS))
