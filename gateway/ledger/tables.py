"""The ledger's tables, as this release uses them.

The decision: one row a purchase, its columns in the order of `Entry`'s fields. Money is BIGINT nano-dollars, which
holds 9.2 billion dollars, also for a sum; quantities and prices are decimal texts, because SQLite has no exact decimal
and a float would lose what fal says. Moments are BIGINT microseconds since the epoch, the same in both databases.
Names carry a prefix: a PostgreSQL database may be shared with other programs, and with their migrations.

How the tables came to be so is told by the steps in `migrations`; tests hold the two together, and `RELEASE`, too.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, MetaData, PrimaryKeyConstraint, String, Table, Text

VERSION_TABLE: Final = "fal_gateway_ledger_version"
RELEASE: Final = "0006"
"""The last of the steps: what `VERSION_TABLE` says of a ledger of this release. Steps compare as texts."""

METADATA: Final = MetaData()

# As alembic makes it, and not among the tables that it compares.
VERSION: Final = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)

PURCHASES: Final = Table(
    "fal_gateway_purchases",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("fal_request_id", Text),
    Column("admitted_at_us", BigInteger, nullable=False),
    Column("changed_at_us", BigInteger, nullable=False),
    Column("units", Text),
    Column("unit", Text),
    Column("unit_price", Text),
    Column("estimate_ns", BigInteger),
    Column("cost_ns", BigInteger),
    Column("source", Text, nullable=False),
)

# A report, a period's spend, and what is old enough to be forgotten.
Index("fal_gateway_purchases_admitted", PURCHASES.c.admitted_at_us, PURCHASES.c.id)

# Open holds: few among many rows.
_IS_HELD: Final = PURCHASES.c.status == "held"
Index(
    "fal_gateway_purchases_held",
    PURCHASES.c.admitted_at_us,
    PURCHASES.c.id,
    sqlite_where=_IS_HELD,
    postgresql_where=_IS_HELD,
)

# A job by the id under which fal knows it.
_IS_BOUND: Final = PURCHASES.c.fal_request_id.is_not(None)
Index(
    "fal_gateway_purchases_bound",
    PURCHASES.c.fal_request_id,
    sqlite_where=_IS_BOUND,
    postgresql_where=_IS_BOUND,
)

# Which shares of which budgets were warned of: once each a period, whichever gateway notices first.
WARNINGS: Final = Table(
    "fal_gateway_warnings",
    METADATA,
    Column("budget", Text, primary_key=True),
    Column("period_start", BigInteger, primary_key=True, autoincrement=False),
    Column("share", Text, primary_key=True),
)

# What was spent over all time: it outlives the rows. In the order of `since_us` an endpoint keeps its place.
TOTALS: Final = Table(
    "fal_gateway_totals",
    METADATA,
    Column("team", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("since_us", BigInteger, nullable=False),
    Column("cost_ns", BigInteger, nullable=False),
)

# What each key has spent on purchases admitted in one day (UTC, days since the epoch): what budgets are compared with.
DAILY_TOTALS: Final = Table(
    "fal_gateway_daily_totals",
    METADATA,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("team", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("cost_ns", BigInteger, nullable=False),
)

# Up to when each gateway's journals are in here, by the database's clock. Only of gateways that share the database.
WATERMARKS: Final = Table(
    "fal_gateway_watermarks",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("applied_us", BigInteger, nullable=False),
)

# Up to which place each journal is in here, written with its rows. Only of gateways that share the database.
JOURNALS: Final = Table(
    "fal_gateway_journals",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("journal", Text, primary_key=True),
    Column("place", BigInteger, nullable=False),
)
