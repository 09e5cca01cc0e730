"""A real service for the tests: the process that `airflow-training serve` is, and the tenants that use it."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import obstore
import psutil
import pytest
import trustme
from argon2 import PasswordHasher
from obstore.store import S3Store
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from airflow_training.api.naming import job_folder
from airflow_training.local.service import Credentials, LocalService
from airflow_training.service.accounts.clients import Clients
from airflow_training.service.database.models import Job, now, open_database
from airflow_training.service.settings import DataFolder
from tests.patience import PATIENCE, wait_for

SQLITE, POSTGRESQL = "sqlite", "postgresql"


def on(*databases: str) -> pytest.MarkDecorator:
    """Have a test run once with each database."""
    return pytest.mark.parametrize("database", databases, indirect=True)


on_both = on(SQLITE, POSTGRESQL)


class RunningService(LocalService):
    """A service that can be looked into, and killed.

    Attributes:
        files: The layout of its data folder.
        database_url: Its database.
        options_of_commands: The options that select this service in other commands.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        authority: Path | None = None,
        database_url: str | None = None,
    ) -> None:
        super().__init__(folder, environment, options, authority, database_url)
        self.files = DataFolder(self.data)
        self.database_url = database_url or self.files.database_url
        of_database = ("--database-url", database_url) if database_url else ()
        self.options_of_commands = ("--data", str(self.data), *of_database)

    def add_client(self, client_id: str, tenant: str = "default") -> Credentials:
        """Register an OAuth2 client, without a process for it: nearly every test has a tenant of its own."""
        sessions = open_database(self.database_url)
        clients = Clients(sessions)
        # A random secret needs no slow hash; the hash names its parameters, so the service verifies it quickly too.
        clients._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        added = clients.add(tenant, client_id)
        close(sessions())
        return Credentials(added.client_id, added.client_secret)

    def supervisors(self) -> list[psutil.Process]:
        mine = str(self.data / "jobs")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(word.startswith(mine) for word in process.cmdline()):
                    found.append(process)
        return found

    def storage_endpoint(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if child.name() == "rclone")


@dataclass(frozen=True)
class Certificates:
    """PEM files of a service, and of the authority that its clients trust."""

    authority: Path
    certificate: Path
    key: Path
    foreign_key: Path

    @classmethod
    def issue(cls, folder: Path) -> Certificates:
        files = cls(*(folder / f"{name}.pem" for name in ("authority", "certificate", "key", "foreign")))
        authority = trustme.CA()
        issued, foreign = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("127.0.0.1")
        files.authority.write_bytes(authority.cert_pem.bytes())
        files.certificate.write_bytes(b"".join(certificate.bytes() for certificate in issued.cert_chain_pems))
        files.key.write_bytes(issued.private_key_pem.bytes())
        files.foreign_key.write_bytes(foreign.private_key_pem.bytes())
        return files


class Tenant:
    """A tenant with a client of its own and a token; of that name, if it is given."""

    def __init__(self, service: RunningService, name: str | None = None) -> None:
        self.service = service
        self.name = name or f"tenant-{uuid4().hex[:8]}"
        self.credentials = service.add_client(f"client-{uuid4().hex[:8]}", self.name)
        trust = ssl.create_default_context(cafile=service.authority)
        self.http = httpx.Client(base_url=f"{service.url}/api/v2/", timeout=PATIENCE, verify=trust)
        reply = self.http.get(
            f"{service.url}/oauth/token",
            params={"grant_type": "client_credentials"},
            auth=(self.credentials.client_id, self.credentials.client_secret),
        )
        self.http.headers["Authorization"] = f"Bearer {reply.raise_for_status().json()['access_token']}"

    def leave(self) -> None:
        """End what still runs, so that the next test has the machine for itself."""
        with contextlib.suppress(httpx.TransportError):
            for job in self.http.get("jobs").json()["jobs"]:
                self.http.delete(f"jobs/{job['job_id']}")
        self.http.close()

    def submit(self, command: str, job_id: str | None = None, name: str = "job", **execution: Any) -> str:
        job_id = job_id or str(uuid4())
        beside: dict[str, Any] = {key: execution.pop(key) for key in ("env", "masks", "model") if key in execution}
        job = {"name": name, **beside, "execution": {"command": command, "completionTime": "1h", **execution}}
        reply = self.http.post(f"jobs/{job_id}", content=json.dumps({"job": job}))
        assert reply.status_code == 202, reply.text
        return job_id

    def status(self, job_id: str) -> dict[str, Any]:
        status: dict[str, Any] = self.http.get(f"jobs/{job_id}").raise_for_status().json()
        return status

    def wait(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait for a job to reach one of the states; to end, if none is named."""
        wanted = states or ("SUCCEEDED", "FAILED", "CANCELED")

        def reached() -> dict[str, Any] | None:
            status = self.status(job_id)
            return status if status["status"] in wanted else None

        return wait_for(reached, f"{job_id}, which is to be {' or '.join(wanted)}")

    def log(self, job_id: str) -> str:
        """What the job itself wrote."""
        lines = self.whole_log(job_id).splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("[service] "))

    def whole_log(self, job_id: str) -> str:
        return self.http.get(f"jobs/{job_id}/logs").raise_for_status().text

    def curves(self, job_id: str, **query: Any) -> dict[str, Any]:
        """The curves of the job's metrics that were read until now, by their names."""
        reply = self.http.get(f"jobs/{job_id}/metrics", params=query).raise_for_status().json()
        return {curve["name"]: curve for curve in reply["curves"]}

    def model(self, job_id: str) -> dict[str, Any]:
        """The model of the job in the job API, once its signatures have been read."""

        def read() -> dict[str, Any] | None:
            model: dict[str, Any] = self.http.get(f"jobs/{job_id}/model").raise_for_status().json()
            return None if model["reason"].endswith("try again.") else model

        return wait_for(read, "The signatures of the model")

    def folder(self, job_id: str, name: str = "job") -> Path:
        """The job's folder in the bucket; made as an upload would make it."""
        folder = self.service.files.bucket(self.name) / job_folder(name, job_id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def work(self, job_id: str) -> Path:
        """The folder in which the job works on its copy of the files; created before its start if necessary."""
        folder = self.service.files.job_state(self.name, job_id) / "files"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def access(self) -> dict[str, Any]:
        """The storage in the job API, once it is ready."""

        def ready() -> dict[str, Any] | None:
            access: dict[str, Any] = self.http.get("storage").raise_for_status().json()
            return access if access["status"] == "Ready" else None

        return wait_for(ready, "The storage")

    def storage(self) -> S3Store:
        access = self.access()
        return bucket(access["endpoint"], access["accessKey"], access["secretKey"])


def bucket(endpoint: str, access_key: str, secret_key: str) -> S3Store:
    return S3Store(
        "data",
        endpoint=endpoint,
        access_key_id=access_key,
        secret_access_key=secret_key,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def keys(store: S3Store, prefix: str | None = None) -> list[str]:
    return sorted(entry["path"] for entry in obstore.list(store, prefix).collect())


def age(service: RunningService, job_id: str, age: timedelta) -> None:
    """Have a job be older than it is: it was submitted, and ended if it did, so much earlier."""
    sessions = open_database(service.database_url)
    with sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(submitted=now() - age))
        ended = Job.finished.is_not(None)
        session.execute(update(Job).where(Job.id == job_id, ended).values(finished=now() - age))
    close(sessions())


def close(session: Session) -> None:
    engine = session.get_bind()
    assert isinstance(engine, Engine)
    session.close()
    engine.dispose()


def run(*arguments: str) -> str:
    """Run `airflow-training …` and return what it prints."""
    words = [sys.executable, "-m", "airflow_training.cli.main", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
