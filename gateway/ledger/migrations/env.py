"""Runs the steps within the transaction that the caller has begun, and locked against other gateways."""

from __future__ import annotations

from alembic import context

from gateway.ledger.tables import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
