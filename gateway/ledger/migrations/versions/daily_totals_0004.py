"""The fourth schema: what each key has spent a day, filled from the purchases that are there."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"

_DAY_US: Final = 86_400 * 10**6
_MOST_NS: Final = 10**17


def upgrade() -> None:
    """Make the table and fill it, once: 2 to 3 s for each million purchases (SQLite)."""
    op.create_table(
        "fal_gateway_daily_totals",
        sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("team", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("cost_ns", sa.BigInteger, nullable=False),
    )
    least = "min" if op.get_bind().dialect.name == "sqlite" else "least"
    op.execute(
        "INSERT INTO fal_gateway_daily_totals (day, team, key, cost_ns) "  # noqa: S608 (constants)
        f"SELECT admitted_at_us / {_DAY_US}, team, key, {least}(sum(cost_ns), {_MOST_NS}) FROM fal_gateway_purchases "
        "WHERE status IN ('unknown', 'settled', 'reconciled') AND cost_ns IS NOT NULL "
        f"GROUP BY admitted_at_us / {_DAY_US}, team, key"
    )
