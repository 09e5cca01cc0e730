"""A lock that allows one service per PostgreSQL database: two services would start each other's jobs.

It is an advisory lock of PostgreSQL, held by a connection. If the connection breaks, for example when PostgreSQL
restarts, the service reacquires the lock before it opens any other connection. If another service has acquired it, the
database is unavailable for this one until the other ends. With SQLite, the lock on the data folder suffices.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from airflow_training.exceptions import coded
from airflow_training.service.database.engine import database_name, usable
from airflow_training.service.errors import ServiceNotStarted

_KEY = int.from_bytes(b"training", "big")

# PostgreSQL detects within 20 seconds that the machine of a service is down.
_KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}


class DatabaseLock:
    """Prevents other services from using the database.

    Args:
        sessions: The database.
    """

    # PostgreSQL may need a moment to detect that a service was killed.
    _TIMEOUT = 5.0

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._engine: Engine = sessions.kw["bind"]
        self._needed = self._engine.dialect.name == "postgresql"
        self._connection: Connection | None = None
        self._mutex = threading.Lock()

    def start(self) -> None:
        """Acquire the lock.

        Raises:
            ServiceNotStarted: Another service has it.
        """
        if not self._needed:
            return
        deadline = time.monotonic() + self._TIMEOUT
        with usable(self._engine):
            while not self._acquire():
                if time.monotonic() > deadline:
                    raise ServiceNotStarted(
                        f"The database {database_name(self._engine)} is in use by another training service: stop that"
                        " one, or choose another database.",
                        code="AT-525",
                    )
                time.sleep(0.1)
        event.listen(self._engine, "connect", self._check_new_connection)

    def ensure_held(self) -> None:
        """Check that this service still has the lock; reacquire it if not.

        Raises:
            DisconnectionError: Another service has it.
        """
        if self._needed and not self._acquire():
            # Connections that are still open must not be used without the lock.
            self._engine.dispose()
            raise DisconnectionError(
                coded(
                    f"The database {database_name(self._engine)} was taken by another training service while it was"
                    " unreachable: stop one of the two.",
                    code="AT-527",
                )
            )

    def stop(self) -> None:
        """Release the lock."""
        with self._mutex:
            self._release()

    def _check_new_connection(self, connection: Any, _record: Any) -> None:
        try:
            self.ensure_held()
        except SQLAlchemyError:
            connection.close()
            raise

    def _acquire(self) -> bool:
        with self._mutex:
            if self._connection:
                with contextlib.suppress(DBAPIError):
                    self._connection.execute(select(1))
                    return True
                self._release()
            connection = create_engine(self._engine.url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()
            try:
                connection.execute(select(*(func.set_config(name, value, False) for name, value in _KEEPALIVE.items())))
                acquired = bool(connection.scalar(select(func.pg_try_advisory_lock(_KEY))))
            except SQLAlchemyError:
                connection.close()
                raise
            if acquired:
                self._connection = connection
            else:
                connection.close()
            return acquired

    def _release(self) -> None:
        if self._connection:
            # The connection may be broken.
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
        self._connection = None
