"""The first schema: the table of purchases and its indexes."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

_TABLE: Final = "fal_gateway_purchases"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        _TABLE,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("fal_request_id", sa.Text),
        sa.Column("admitted_at_us", sa.BigInteger, nullable=False),
        sa.Column("changed_at_us", sa.BigInteger, nullable=False),
        sa.Column("units", sa.Text),
        sa.Column("unit", sa.Text),
        sa.Column("unit_price", sa.Text),
        sa.Column("estimate_ns", sa.BigInteger),
        sa.Column("cost_ns", sa.BigInteger),
        sa.Column("source", sa.Text, nullable=False),
    )
    op.create_index(f"{_TABLE}_admitted", _TABLE, ["admitted_at_us", "id"])
    held, bound = sa.text("status = 'held'"), sa.text("fal_request_id IS NOT NULL")
    op.create_index(f"{_TABLE}_held", _TABLE, ["admitted_at_us", "id"], sqlite_where=held, postgresql_where=held)
    op.create_index(f"{_TABLE}_bound", _TABLE, ["fal_request_id"], sqlite_where=bound, postgresql_where=bound)
