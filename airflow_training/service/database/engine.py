"""The way to the database: SQLite in the data folder, or PostgreSQL by its URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, exc, make_url

from airflow_training.service.errors import ServiceNotStarted

_FORM = "postgresql+psycopg://user:password@host:5432/database"

AWAY = (exc.OperationalError, exc.DisconnectionError, exc.TimeoutError)
"""What is raised while the database does not answer."""

# A server that says nothing any more, its machine or the network being gone, is noticed within seconds. What stands in
# the URL goes before it. Source: PostgreSQL's manual, "Database Connection Control Functions".
_PATIENCE = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "30",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


def postgresql(url: str) -> URL:
    """Read the URL of a PostgreSQL database; no error holds any of it, for it has a password.

    Raises:
        ServiceNotStarted: It cannot be read, or is that of another database.

    >>> postgresql("postgresql://me:secret@db/training?connect_timeout=9").query["connect_timeout"]
    '9'
    """
    try:
        # More than one @ means that one is in the password, and that its end would be taken for the host.
        read = make_url(url) if url.count("@") <= 1 else None
    except (exc.ArgumentError, ValueError):
        read = None
    if read is None or read.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ServiceNotStarted(
            f"The database URL cannot be read: write it like {_FORM}, with %40 for an @ and %2F for a / in the"
            " password.",
            code="AT-521",
        )
    return read.set(drivername="postgresql+psycopg", query={**_PATIENCE, **read.query})


def make_engine(url: str | URL) -> Engine:
    """Make what connects to a database; nothing is connected yet.

    Raises:
        ServiceNotStarted: The driver is missing, or the file of SQLite cannot be made.
    """
    url = make_url(url)
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    try:
        # Statements that change what they find need no more than this, and would fail beside each other with more.
        return create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED")
    except ImportError as error:
        raise ServiceNotStarted(
            'PostgreSQL needs its driver psycopg: pip install "airflow-training[service,postgresql]".',
            code="AT-522",
        ) from error


@contextmanager
def usable(engine: Engine) -> Iterator[None]:
    """Say in one sentence why a database cannot be used.

    Raises:
        ServiceNotStarted: It cannot.
    """
    try:
        yield
    except exc.DBAPIError as error:
        engine.dispose()
        raise ServiceNotStarted(
            f"The database {name_of(engine)} cannot be used ({reason(error)}): see that it is there, and that the"
            " service may make tables in it.",
            code="AT-523",
        ) from error


def name_of(engine: Engine) -> str:
    """The database, in a message: without its password, which may stand among the options too."""
    return engine.url.set(query={}).render_as_string(hide_password=True)


def reason(error: Exception) -> str:
    """What the database says, in one line: of many addresses that were tried, the last."""
    said = error.orig if isinstance(error, exc.DBAPIError) else error
    return str(said).rpartition("failed: ")[2].split("\n")[0].removeprefix("FATAL:").strip()


def _sqlite(url: URL) -> Engine:
    if url.database:
        try:
            # Its owner's alone from the first byte on: it holds keys.
            Path(url.database).touch(mode=0o600)
        except OSError as error:
            raise ServiceNotStarted(
                f"The database {url.database} cannot be made or written to: {error.strerror}. Choose another folder.",
                code="AT-524",
            ) from error
    engine = create_engine(url)
    event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Readers go on while one writes, and writers wait for each other.
    cursor.execute("PRAGMA busy_timeout=20000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()
