"""The tables: OAuth2 clients, signing keys and jobs."""

from __future__ import annotations

from datetime import datetime, timezone

from sqlalchemy import URL, DateTime, Dialect, Enum, Index, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from airflow_training.api.resources import Resources
from airflow_training.api.status import JobState
from airflow_training.service.database.engine import make_engine, usable
from airflow_training.service.database.migrations import upgrade


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC, stored without a time zone, which SQLite does not support."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a time for the database."""
        return value.astimezone(timezone.utc).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a time from the database."""
        return value.replace(tzinfo=timezone.utc) if value else None


class Table(DeclarativeBase):
    """Base class of the tables. Changes need a migration, see `migrations/`."""


class Client(Table):
    """An OAuth2 client; only the hash of its secret is stored."""

    __tablename__ = "clients"

    client_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(255))
    tenant: Mapped[str] = mapped_column(String(64))
    # Scopes separated by spaces, as in OAuth2.
    scope: Mapped[str] = mapped_column(String(255))
    # Identifies the secret: tokens and storage keys of an earlier secret are invalid.
    generation: Mapped[str] = mapped_column(String(32))
    created: Mapped[datetime] = mapped_column(UtcTime)


class SigningKey(Table):
    """A signing key of access tokens: the newest key signs, older ones only verify."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(128))
    created: Mapped[datetime] = mapped_column(UtcTime)


class Job(Table):
    """A job. Clients choose the ids, so two tenants can have the same."""

    __tablename__ = "jobs"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    description: Mapped[str] = mapped_column(Text)
    # The requested resources; those of its resource plan at the time of the submit.
    cpus: Mapped[int]
    memory: Mapped[int]
    gpus: Mapped[int]
    # The allocated GPUs, for the next start of the service.
    gpu_ids: Mapped[str] = mapped_column(Text, default="")
    state: Mapped[JobState] = mapped_column(Enum(JobState, native_enum=False, length=16), default=JobState.PENDING)
    # A runner has it. Until the command runs, the job is still PENDING for its tenant.
    claimed: Mapped[bool] = mapped_column(default=False)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    container_id: Mapped[str] = mapped_column(String(128), default="")
    submitted: Mapped[datetime] = mapped_column(UtcTime, default=now)
    started: Mapped[datetime | None] = mapped_column(UtcTime)
    finished: Mapped[datetime | None] = mapped_column(UtcTime)
    exit_code: Mapped[int | None]
    message: Mapped[str] = mapped_column(Text, default="")

    @property
    def requested(self) -> Resources:
        """Its requested resources."""
        return Resources(self.cpus, self.memory, self.gpus)

    __table_args__ = (
        Index("jobs_by_state", "state", "claimed", "submitted", "tenant"),
        Index("jobs_by_tenant", "tenant", "submitted"),
        Index("jobs_by_finish", "finished", "tenant"),
    )


def open_database(url: str | URL) -> sessionmaker[Session]:
    """Open the database and migrate it to the schema of this version.

    Several processes can use it at once: the service and the commands.

    Raises:
        ServiceNotStarted: A newer version created it, or it cannot be used.
    """
    engine = make_engine(url)
    with usable(engine):
        upgrade(engine)
    return sessionmaker(engine, expire_on_commit=False)
