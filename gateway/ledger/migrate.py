"""The steps of the schema, from an older release's to this one's: the only module that loads alembic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def climb(connection: Connection) -> None:
    """Take all steps that the database has not taken yet, within the transaction that the caller has begun."""
    command.upgrade(config_of(connection), "head")


def config_of(connection: Connection) -> Config:
    """Return what alembic is to know: where the steps are, and the connection that `ledger/migrations/env.py` takes."""
    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))  # its reader replaces %(names)s
    config.attributes["connection"] = connection
    return config
