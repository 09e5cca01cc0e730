"""One service at a time on a PostgreSQL database: two, with a folder each, would start each other's jobs.

The lock is one of PostgreSQL's, which lasts as long as the connection that took it. Where that ends, as when PostgreSQL
is started again, the service takes the lock anew before it makes any other connection. If another service was quicker,
the database is out of reach for this one, until the other ends. Of SQLite the lock on the data folder is enough.
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
from airflow_training.service.database.engine import name_of, usable
from airflow_training.service.errors import ServiceNotStarted

_KEY = int.from_bytes(b"training", "big")

# PostgreSQL notices within this many seconds that a service is gone whose machine was shut off.
_NOTICED = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}


class DatabaseLock:
    """Sees to it that no other service uses the database.

    Args:
        sessions: The database.
    """

    # PostgreSQL may need a moment to see that a service that was killed is gone.
    _PATIENCE = 5.0

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._engine: Engine = sessions.kw["bind"]
        self._needed = self._engine.dialect.name == "postgresql"
        self._connection: Connection | None = None
        self._one_at_a_time = threading.Lock()

    def start(self) -> None:
        """Take the lock.

        Raises:
            ServiceNotStarted: Another service has it.
        """
        if not self._needed:
            return
        deadline = time.monotonic() + self._PATIENCE
        with usable(self._engine):
            while not self._taken():
                if time.monotonic() > deadline:
                    raise ServiceNotStarted(
                        f"The database {name_of(self._engine)} is in use by another training service: stop that one,"
                        " or choose another database.",
                        code="AT-525",
                    )
                time.sleep(0.1)
        event.listen(self._engine, "connect", self._check)

    def keep(self) -> None:
        """See that the lock is still ours, or take it anew.

        Raises:
            DisconnectionError: Another service has it.
        """
        if self._needed and not self._taken():
            # What is connected still is so without the lock.
            self._engine.dispose()
            raise DisconnectionError(
                coded(
                    f"The database {name_of(self._engine)} was taken by another training service while it was out of"
                    " reach: stop one of the two.",
                    code="AT-527",
                )
            )

    def stop(self) -> None:
        """Give it back."""
        with self._one_at_a_time:
            self._let_go()

    def _check(self, connection: Any, _record: Any) -> None:
        try:
            self.keep()
        except SQLAlchemyError:
            connection.close()
            raise

    def _taken(self) -> bool:
        with self._one_at_a_time:
            if self._connection:
                with contextlib.suppress(DBAPIError):
                    self._connection.execute(select(1))
                    return True
                self._let_go()
            connection = create_engine(self._engine.url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()
            try:
                connection.execute(select(*(func.set_config(name, value, False) for name, value in _NOTICED.items())))
                taken = bool(connection.scalar(select(func.pg_try_advisory_lock(_KEY))))
            except SQLAlchemyError:
                connection.close()
                raise
            if taken:
                self._connection = connection
            else:
                connection.close()
            return taken

    def _let_go(self) -> None:
        if self._connection:
            # It may be broken.
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
        self._connection = None
