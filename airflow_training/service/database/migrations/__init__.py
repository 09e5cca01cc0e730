"""Migrations of the database schema: a newer service upgrades the database of an older one.

After a change of `models.py`, add a module to `versions/`; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, func, inspect, select

from airflow_training.service.database.engine import database_name
from airflow_training.service.errors import ServiceNotStarted

# The schema before versions were recorded.
_UNVERSIONED = "0001"

_KEY = int.from_bytes(b"migrates", "big")
"""The key of PostgreSQL's advisory lock for migrations."""


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Upgrade a database to a schema version.

    Args:
        engine: The database.
        revision: The version; the newest by default.

    Raises:
        ServiceNotStarted: A newer service created the database.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if MigrationContext.configure(connection).get_current_revision() == newest:
            return
    with _exclusive_transaction(engine) as connection:
        config.attributes["connection"] = connection
        tables = inspect(connection).get_table_names()
        if "jobs" in tables and "alembic_version" not in tables:
            command.stamp(config, _UNVERSIONED)
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            there = MigrationContext.configure(connection).get_current_revision()
            raise ServiceNotStarted(
                f"The database {database_name(engine)} was created by a newer version of airflow-training (its schema"
                f" is {there}, ours {newest}): install that version, or choose another data folder or database.",
                code="AT-526",
            ) from error


@contextmanager
def _exclusive_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction with exclusive access to the schema."""
    sqlite = engine.dialect.name == "sqlite"
    # By default, Python begins a transaction of SQLite only at the first change of a row.
    with (engine.execution_options(isolation_level="AUTOCOMMIT") if sqlite else engine).connect() as connection:
        if sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(select(func.pg_advisory_xact_lock(_KEY)))
        yield connection
        connection.commit()
