"""The second schema: which warnings about budgets were given."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "fal_gateway_warnings",
        sa.Column("budget", sa.Text, primary_key=True),
        sa.Column("period_start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("share", sa.Text, primary_key=True),
    )
