"""What the service is told when it starts, and where it keeps its things."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from airflow_training.jobs.identity import job_folder
from airflow_training.service.errors import ServiceNotStarted

BUCKET = "data"


@dataclass(frozen=True)
class ServiceSettings:
    """What `airflow-training serve` takes.

    Attributes:
        data: The folder that everything is kept in.
        host: The address to listen on; loopback unless told otherwise.
        port: The port of the job API; 0 takes a free one.
        storage_port: The port of the S3 endpoint; 0 takes a free one.
        token_lifetime: Seconds that an access token is good for; 12 hours, as on the platform of old.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8900
    storage_port: int = 0
    token_lifetime: int = 12 * 60 * 60


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
                " another folder."
            )
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise ServiceNotStarted(
                f"The data folder {path} cannot be made or written to: {error.strerror}. Choose another folder."
            ) from error
        return cls(path)

    @property
    def database(self) -> Path:
        """The database file."""
        return self.root / "service.db"

    @property
    def lock(self) -> Path:
        """The file that a running service holds locked."""
        return self.root / "lock"

    @property
    def signing_key(self) -> Path:
        """The key that access tokens are signed with."""
        return self.root / "signing.key"

    @property
    def storage(self) -> Path:
        """What the S3 endpoint needs: keys, cache, log."""
        return self.root / "storage"

    def job_state(self, tenant: str, job_id: str) -> Path:
        """What the service knows of a job's run: its specification, its log, its end."""
        return self.root / "jobs" / tenant / job_id

    def tenant(self, tenant: str) -> Path:
        """What a tenant sees as its S3 endpoint: each folder in it is a bucket."""
        return self.root / "tenants" / tenant

    def bucket(self, tenant: str) -> Path:
        """The bucket of a tenant."""
        return self.tenant(tenant) / BUCKET

    def job_folder(self, tenant: str, name: str, job_id: str) -> Path:
        """The folder a job runs in, which is the folder its files were uploaded to."""
        return self.bucket(tenant) / job_folder(name, job_id)
