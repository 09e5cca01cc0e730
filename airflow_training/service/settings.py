"""The settings of the service, and the layout of its data folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from airflow_training.api.resources import Resources
from airflow_training.api.storage import BUCKET
from airflow_training.service.errors import ServiceNotStarted
from airflow_training.service.storage.s3 import S3Settings


@dataclass(frozen=True)
class Tls:
    """The certificate of the service.

    Attributes:
        certificate: PEM file of the certificate chain.
        key: PEM file of its private key.
    """

    certificate: Path
    key: Path


@dataclass(frozen=True)
class RaySettings:
    """A Ray cluster.

    Attributes:
        address: The URL of its dashboard.
        storage_host: The host by which its nodes reach the S3 endpoint of the service; this machine's address in the
            network of the cluster if None.
        headers: Headers of every request to it, which may contain credentials.
    """

    address: str
    storage_host: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """The options of `airflow-training serve`, which documents them and has the defaults.

    Attributes:
        plans: The resources of each `resourcePlanId`.
    """

    data: Path
    database_url: str | None = field(repr=False)
    host: str
    port: int
    storage_port: int
    storage_url: str | None
    tls: Tls | None
    token_lifetime: int
    access_log: Path | None
    cpus: int | None
    memory: int | None
    gpus: int | None
    runner: Literal["process", "container", "ray"]
    ray: RaySettings | None
    s3: S3Settings | None
    plans: Mapping[str, Resources]
    job_disk: int | None
    job_log: int
    free_disk: int
    keep_days: float | None


@dataclass(frozen=True)
class DataFolder:
    """The layout of the data folder.

    Tenants reach only `tenants/` over S3; the state of jobs, the keys and the database are beside it.

    Attributes:
        root: The folder itself, absolute.
    """

    root: Path

    @classmethod
    def at(cls, path: Path) -> DataFolder:
        """Create the folder if it does not exist, with access for its owner only.

        Raises:
            ServiceNotStarted: The folder cannot be used.
        """
        path = path.expanduser().resolve()
        if os.pathsep in str(path):
            raise ServiceNotStarted(
                f"The data folder {path} has a ':' in its name, which cannot be part of a job's PATH: choose"
                " another folder.",
                code="AT-501",
            )
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (path / "lock").touch(mode=0o600)
        except OSError as error:
            raise ServiceNotStarted(
                f"The data folder {path} cannot be created or written to: {error.strerror}. Choose another folder.",
                code="AT-502",
            ) from error
        return cls(path)

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the SQLite database in the folder."""
        return f"sqlite:///{self.database}"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "service.db"

    @property
    def lock(self) -> Path:
        """The file that a running service has locked."""
        return self.root / "lock"

    @property
    def access_log(self) -> Path:
        """The access log, unless another file is chosen."""
        return self.root / "access.log"

    @property
    def storage(self) -> Path:
        """Keys, cache and log of the S3 endpoint."""
        return self.root / "storage"

    @property
    def storage_keys(self) -> Path:
        """The keys of the S3 endpoint."""
        return self.storage / "keys.json"

    def job_state(self, tenant: str, job_id: str) -> Path:
        """The run folder of a job, see `run_folder.py`."""
        return self.job_states(tenant) / job_id

    def job_states(self, tenant: str) -> Path:
        """The run folders of a tenant's jobs."""
        return self.root / "jobs" / tenant

    def tenant(self, tenant: str) -> Path:
        """The root of a tenant's S3 endpoint: each folder in it is a bucket."""
        return self.root / "tenants" / tenant

    def bucket(self, tenant: str) -> Path:
        """The bucket of a tenant."""
        return self.tenant(tenant) / BUCKET
