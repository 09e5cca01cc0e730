"""The embedded training service as a local process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from airflow_training.local.process import LocalProcess, LocalProcessError, end_processes_in, free_port, wait_until


@dataclass(frozen=True)
class Credentials:
    """The credentials of an OAuth2 client."""

    client_id: str
    client_secret: str = field(repr=False)


class LocalService:
    """A training service in a folder, on a free port of the loopback interface.

    Args:
        folder: The folder of all its files.
        environment: Variables in addition to those of this process.
        options: Further options of `airflow-training serve`.
        authority: If the options enable TLS, the file of trusted certificates.
        database_url: Its PostgreSQL database; SQLite in its folder if None.

    Attributes:
        data: Its data folder.
        url: Its URL.
        authority: The file of trusted certificates; None for plain HTTP.
        process: The process.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        authority: Path | None = None,
        database_url: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "data"
        port = free_port()
        self.authority = authority
        # Not the database in the user's environment; an empty value counts as unset.
        self._database = {"TRAINING_DATABASE_URL": database_url or ""}
        self.url = f"{'https' if authority else 'http'}://127.0.0.1:{port}"
        self.process = LocalProcess(
            _program("serve", "--data", str(self.data), "--port", str(port), "--storage-port", "0", *options),
            folder=folder,
            name="service",
            env={**os.environ, **(environment or {}), **self._database},
        )

    def start(self) -> None:
        """Start it and wait until it answers; after a stop it starts at the same URL again."""
        self.process.start()
        wait_until(self._answers, "start of the training service", timeout=300)

    def stop(self) -> None:
        """Stop it; running jobs continue."""
        self.process.stop()

    def remove(self) -> None:
        """Stop it and its jobs."""
        self.stop()
        end_processes_in(self.data)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it, and stop it and its jobs at the end of the block."""
        try:
            self.start()
            yield
        finally:
            self.remove()

    def add_client(self, client_id: str, tenant: str = "default") -> Credentials:
        """Register an OAuth2 client."""
        command = _program("clients", "add", client_id, "--tenant", tenant, "--data", str(self.data), "--json")
        environment = {**os.environ, **self._database}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise LocalProcessError(f"The client {client_id} could not be added: {done.stderr.strip()}", code="AT-724")
        answer = json.loads(done.stdout)
        return Credentials(answer["client_id"], answer["client_secret"])

    def _answers(self) -> bool:
        self.process.check()
        try:
            return requests.get(
                f"{self.url}/healthz", timeout=5, verify=str(self.authority) if self.authority else True
            ).ok
        except (requests.ConnectionError, requests.Timeout):
            return False


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow_training.cli.main", *arguments]
