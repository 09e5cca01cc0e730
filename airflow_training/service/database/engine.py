"""The connection to the database: SQLite in the data folder, or PostgreSQL by URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, exc, make_url

from airflow_training.service.errors import ServiceNotStarted

DATABASE_UNAVAILABLE = (exc.OperationalError, exc.DisconnectionError, exc.TimeoutError)
"""The errors of SQLAlchemy while the database is unavailable."""

# Detect within seconds that the server or the network is down. Options in the URL take precedence.
# Source: PostgreSQL's manual, "Database Connection Control Functions".
_TIMEOUTS = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "30",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


def postgresql_url(url: str) -> URL:
    """Parse the URL of a PostgreSQL database; errors do not quote it, since it may contain a password.

    Raises:
        ServiceNotStarted: It is not valid, or not for PostgreSQL.

    >>> postgresql_url("postgresql://me:secret@db/training?connect_timeout=9").query["connect_timeout"]
    '9'
    """
    try:
        # With a second @ in the password, the rest of the password would be taken for the host.
        read = make_url(url) if url.count("@") <= 1 else None
    except (exc.ArgumentError, ValueError):
        read = None
    if read is None or read.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ServiceNotStarted(
            "The database URL cannot be read: write it like postgresql+psycopg://user:password@host:5432/database,"
            " with %40 for an @ and %2F for a / in the password.",
            code="AT-521",
        )
    return read.set(drivername="postgresql+psycopg", query={**_TIMEOUTS, **read.query})


def make_engine(url: str | URL) -> Engine:
    """Create the engine of a database, without a connection.

    Raises:
        ServiceNotStarted: The driver is missing, or the SQLite file cannot be created.
    """
    url = make_url(url)
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    try:
        # The guarded UPDATEs need no more isolation; with more, concurrent ones would fail.
        return create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED")
    except ImportError as error:
        raise ServiceNotStarted(
            'PostgreSQL needs the driver psycopg: pip install "airflow-training[service,postgresql]".',
            code="AT-522",
        ) from error


@contextmanager
def usable(engine: Engine) -> Iterator[None]:
    """Convert database errors at the start.

    Raises:
        ServiceNotStarted: The database cannot be used.
    """
    try:
        yield
    except exc.DBAPIError as error:
        engine.dispose()
        raise ServiceNotStarted(
            f"The database {database_name(engine)} cannot be used ({reason(error)}): check that it exists, and that the"
            " service may create tables in it.",
            code="AT-523",
        ) from error


def database_name(engine: Engine) -> str:
    """The URL of the database for a message, without the password and the options, which may contain it."""
    return engine.url.set(query={}).render_as_string(hide_password=True)


def reason(error: Exception) -> str:
    """The reason of a database error in one line; after several attempted addresses, that of the last one."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    return str(cause).rpartition("failed: ")[2].split("\n")[0].removeprefix("FATAL:").strip()


def _sqlite(url: URL) -> Engine:
    if url.database:
        try:
            # It contains keys: only its owner can read it, from its creation on.
            Path(url.database).touch(mode=0o600)
        except OSError as error:
            raise ServiceNotStarted(
                f"The database {url.database} cannot be created or written to: {error.strerror}. Choose another"
                " folder.",
                code="AT-524",
            ) from error
    engine = create_engine(url)
    event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Readers do not block, and writers wait for each other.
    cursor.execute("PRAGMA busy_timeout=20000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()
