"""Up to when each gateway's journals are in the ledger: what a missing row means depends on it.

The decision: by the database's clock, the only one that gateways have in common. A gateway writes its watermark about
once a second, also while nothing is bought. One that ends in order takes its row along; one that was killed leaves it
behind, and the gateway that adopts its journals deletes it. Where its disk is lost no gateway can: its row counts for
ten minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, delete, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger import journal_places
from gateway.ledger.tables import WATERMARKS

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.engine import Connection

    from gateway.ledger.database import Database

ABANDONED_SECONDS: Final = 600
_MICROSECONDS: Final = 1_000_000
_ABANDONED_US: Final = ABANDONED_SECONDS * _MICROSECONDS
_MARK: Final = WATERMARKS.c
_SQLITE_CLOCK: Final = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
_POSTGRESQL_CLOCK: Final = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


class Watermarks:
    """The watermarks in one database. Every method raises LedgerAwayError while that does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def clock_us(self) -> int:
        """Return the database's time, in microseconds since the epoch."""
        with self._database.reading() as connection:
            return int(connection.execute(select(_clock(connection))).scalar_one())

    def write(self, gateway: str, applied_us: int) -> None:
        """Say that what a gateway had in its journals at a moment, by the database's clock, is in the ledger."""
        with self._database.writing() as connection:
            insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
            row = insert(WATERMARKS).values(gateway=gateway, applied_us=applied_us)
            connection.execute(
                row.on_conflict_do_update(index_elements=[_MARK.gateway], set_={"applied_us": applied_us})
            )

    def seconds_behind(self, living: Collection[str] = ()) -> float | None:
        """Return how old the oldest watermark is; None where a gateway has none, so that nothing is known of its lines.

        Those of abandoned gateways do not count. `living` are gateways that are known to live: none of these is
        abandoned, and all of them share a database that is no file.
        """
        known = () if self._database.is_sqlite else living
        with self._database.reading() as connection:
            ages = {row.gateway: row.age for row in connection.execute(_ages(connection))}
        counted = [age for gateway, age in ages.items() if gateway in known or age <= _ABANDONED_US]
        return max(counted) / _MICROSECONDS if counted and ages.keys() >= set(known) else None

    def remove(self, gateways: Collection[str]) -> None:
        """Delete the watermarks of gateways that have ended, and of those that are abandoned."""
        with self._database.writing() as connection:
            is_abandoned = _MARK.applied_us < _clock(connection) - _ABANDONED_US
            connection.execute(delete(WATERMARKS).where(_MARK.gateway.in_(gateways) | is_abandoned))
            journal_places.forget(connection)


def _ages(connection: Connection) -> Select[tuple[str, int]]:
    return select(_MARK.gateway, (_clock(connection) - _MARK.applied_us).label("age"))


def _clock(connection: Connection) -> ColumnElement[int]:
    text = _SQLITE_CLOCK if connection.dialect.name == "sqlite" else _POSTGRESQL_CLOCK
    return literal_column(text, BigInteger)
