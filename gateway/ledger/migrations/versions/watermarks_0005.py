"""The fifth schema: up to when each gateway's journals are in the ledger."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "fal_gateway_watermarks",
        sa.Column("gateway", sa.Text, primary_key=True),
        sa.Column("applied_us", sa.BigInteger, nullable=False),
    )
