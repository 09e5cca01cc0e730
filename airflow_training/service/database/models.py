"""The tables: OAuth2 clients, signing keys and jobs."""

from __future__ import annotations

from datetime import datetime, timezone

from sqlalchemy import URL, DateTime, Dialect, Enum, Index, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from airflow_training.api.status import JobState
from airflow_training.service.database.engine import make_engine, usable
from airflow_training.service.database.migrations import upgrade
from airflow_training.service.scheduling.resources import Amount


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC: SQLite forgets time zones, so none is stored and all are UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Write a time."""
        return value.astimezone(timezone.utc).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read a time."""
        return value.replace(tzinfo=timezone.utc) if value else None


class Table(DeclarativeBase):
    """What every table is. A change of one needs a migration, see `migrations/`."""


class Client(Table):
    """An OAuth2 client; its secret is known by its hash only."""

    __tablename__ = "clients"

    client_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(255))
    tenant: Mapped[str] = mapped_column(String(64))
    # What it may do, separated by spaces, as in OAuth2.
    scope: Mapped[str] = mapped_column(String(255))
    # Which of its secrets this is: the tokens and storage keys that an earlier one led to are no good any more.
    generation: Mapped[str] = mapped_column(String(32))
    created: Mapped[datetime] = mapped_column(UtcTime)


class SigningKey(Table):
    """A key that access tokens are signed with: the newest signs, the ones before it are still good for reading."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(128))
    created: Mapped[datetime] = mapped_column(UtcTime)


class Job(Table):
    """A job. Clients choose the ids, so two tenants may choose the same."""

    __tablename__ = "jobs"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    description: Mapped[str] = mapped_column(Text)
    # What it asks for, by its resources or by a resource plan of that time.
    cpus: Mapped[int]
    memory: Mapped[int]
    gpus: Mapped[int]
    # The graphics processors that it was given: a service that is started again knows them by this.
    gpu_ids: Mapped[str] = mapped_column(Text, default="")
    state: Mapped[JobState] = mapped_column(Enum(JobState, native_enum=False, length=16), default=JobState.PENDING)
    # A runner has it. Between this and RUNNING the job is still PENDING for its tenant: nothing of it runs yet.
    claimed: Mapped[bool] = mapped_column(default=False)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    container_id: Mapped[str] = mapped_column(String(128), default="")
    submitted: Mapped[datetime] = mapped_column(UtcTime, default=now)
    started: Mapped[datetime | None] = mapped_column(UtcTime)
    finished: Mapped[datetime | None] = mapped_column(UtcTime)
    exit_code: Mapped[int | None]
    message: Mapped[str] = mapped_column(Text, default="")

    @property
    def asked(self) -> Amount:
        """What it asks for."""
        return Amount(self.cpus, self.memory, self.gpus)

    __table_args__ = (
        Index("jobs_by_state", "state", "claimed", "submitted", "tenant"),
        Index("jobs_by_tenant", "tenant", "submitted"),
        Index("jobs_by_finish", "finished", "tenant"),
    )


def open_database(url: str | URL) -> sessionmaker[Session]:
    """Open the database, and bring it to the schema of this version.

    Several processes may use it at once: the service, and the commands that see to clients.

    Raises:
        ServiceNotStarted: A newer version made it, or it cannot be used.
    """
    engine = make_engine(url)
    with usable(engine):
        upgrade(engine)
    return sessionmaker(engine, expire_on_commit=False)
