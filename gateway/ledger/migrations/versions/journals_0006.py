"""The sixth schema: up to which place each journal is in the ledger, as of the rows beside it."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "fal_gateway_journals",
        sa.Column("gateway", sa.Text, primary_key=True),
        sa.Column("journal", sa.Text, primary_key=True),
        sa.Column("place", sa.BigInteger, nullable=False),
    )
