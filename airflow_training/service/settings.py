"""What the service is told when it starts, and where it keeps its things."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from airflow_training.service.errors import ServiceNotStarted
from airflow_training.service.scheduling.resources import Amount
from airflow_training.service.storage.s3 import S3Settings

BUCKET = "data"

JOB_ID = r"^[A-Za-z0-9-]{1,64}$"
"""The id of a job, which is chosen by a client, and is the name of a folder."""


@dataclass(frozen=True)
class Tls:
    """What the service proves with that it is who it says.

    Attributes:
        certificate: File with its certificate and those of the authorities between, PEM.
        key: File with its private key, PEM.
    """

    certificate: Path
    key: Path


class RunnerName(str, Enum):
    """What jobs run as."""

    PROCESS = "process"
    CONTAINER = "container"
    RAY = "ray"


@dataclass(frozen=True)
class RaySettings:
    """A Ray cluster.

    Attributes:
        address: The address of its dashboard, with http or https.
        storage_host: The name or address by which its nodes reach the S3 endpoint of the service; the address that
            this machine has towards the cluster if None.
        headers: Headers of every request to it, which may prove who we are.
    """

    address: str
    storage_host: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ServiceSettings:
    """What `airflow-training serve` takes.

    Attributes:
        data: The folder that everything is kept in.
        database_url: The PostgreSQL database, with its password; SQLite in the folder if None.
        host: The address to listen on; loopback unless told otherwise.
        port: The port of the job API; 0 takes a free one.
        storage_port: The port of the S3 endpoint; 0 takes a free one.
        storage_url: The address by which clients reach the S3 endpoint; that of its socket if None.
        tls: Certificate and key, for the job API and the S3 endpoint; None for plain HTTP.
        token_lifetime: Seconds that an access token is good for; 12 hours, as on the platform of old.
        cpus: Processors for jobs; all there are if None.
        memory: MB for jobs; nine tenths of what there is if None.
        gpus: Graphics processors for jobs; all there are if None.
        runner: What jobs run as.
        ray: The cluster that they run on, where that is what the runner does.
        s3: The S3 store that keeps the files of all tenants; the data folder does if None.
        plans: What a `resourcePlanId` stands for.
        free_disk: MB that are to be free on the data folder's disk before a job is started.
        job_disk: MB that a job may have in its folder; half of the disk if None.
        job_log: MB that the log of a job may have.
        keep_days: Days after its end that a job is removed; kept for ever if None.
        access_log: File of the access log, `-` for the standard output; one in the data folder if None.
    """

    data: Path
    database_url: str | None = field(default=None, kw_only=True, repr=False)
    host: str = "127.0.0.1"
    port: int = 8900
    storage_port: int = 0
    storage_url: str | None = None
    tls: Tls | None = None
    token_lifetime: int = 12 * 60 * 60
    cpus: int | None = None
    memory: int | None = None
    gpus: int | None = None
    runner: RunnerName = RunnerName.PROCESS
    ray: RaySettings | None = None
    s3: S3Settings | None = None
    plans: Mapping[str, Amount] = field(default_factory=lambda: BASIC_PLANS)
    free_disk: int = 1024
    job_disk: int | None = None
    job_log: int = 1024
    keep_days: float | None = None
    access_log: Path | None = None


BASIC_PLANS: Mapping[str, Amount] = {"basic": Amount(1, 4096)}
"""The resource plan that clients of the old platform name when they need nothing special."""


@dataclass(frozen=True)
class DataFolder:
    """The layout of the data folder.

    What tenants reach over S3 lies below `tenants/`, and nothing else does: the state of jobs, keys and the
    database lie beside it.

    Attributes:
        root: The folder itself, absolute.
    """

    root: Path

    @classmethod
    def at(cls, path: Path) -> DataFolder:
        """Make the folder where it is missing; only its owner may look inside.

        Raises:
            ServiceNotStarted: The folder cannot be used.
        """
        path = path.expanduser().resolve()
        if os.pathsep in str(path):
            raise ServiceNotStarted(
                f"The data folder {path} has a {os.pathsep!r} in its name, which cannot stand in a job's PATH: choose"
                " another folder.",
                code="AT-501",
            )
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (path / "lock").touch(mode=0o600)
        except OSError as error:
            raise ServiceNotStarted(
                f"The data folder {path} cannot be made or written to: {error.strerror}. Choose another folder.",
                code="AT-502",
            ) from error
        return cls(path)

    @property
    def database_url(self) -> str:
        """The database in the folder, as SQLAlchemy takes it."""
        return f"sqlite:///{self.database}"

    @property
    def database(self) -> Path:
        """The database file."""
        return self.root / "service.db"

    @property
    def lock(self) -> Path:
        """The file that a running service holds locked."""
        return self.root / "lock"

    @property
    def access_log(self) -> Path:
        """What was asked of the service, and by whom."""
        return self.root / "access.log"

    @property
    def storage(self) -> Path:
        """What the S3 endpoint needs: keys, cache, log."""
        return self.root / "storage"

    @property
    def storage_keys(self) -> Path:
        """The keys of the S3 endpoint."""
        return self.storage / "keys.json"

    def job_state(self, tenant: str, job_id: str) -> Path:
        """What the service knows of a job's run: its specification, its log, its end."""
        return self.job_states(tenant) / job_id

    def job_states(self, tenant: str) -> Path:
        """What it knows of the runs of a tenant's jobs, a folder for each."""
        return self.root / "jobs" / tenant

    def tenant(self, tenant: str) -> Path:
        """What a tenant sees as its S3 endpoint: each folder in it is a bucket."""
        return self.root / "tenants" / tenant

    def bucket(self, tenant: str) -> Path:
        """The bucket of a tenant."""
        return self.tenant(tenant) / BUCKET
