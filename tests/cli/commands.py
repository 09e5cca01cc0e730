"""Commands, as typed in a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from typer.testing import CliRunner

from airflow_training.cli.main import app
from airflow_training.client.settings import ClientSettings


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Done]


def run(*words: str) -> Done:
    """Run a command; raises unexpected errors."""
    done = CliRunner().invoke(app, words)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def connection_to(settings: ClientSettings, **changes: Any) -> str:
    """A connection of Airflow to a service, as JSON."""
    url = urlsplit(settings.base_url)
    login = {"login": settings.client_id, "password": settings.client_secret}
    connection = {"conn_type": "training", "schema": url.scheme, "host": url.hostname, "port": url.port, **login}
    return json.dumps({**connection, **changes})


def job_file(
    folder: Path, command: str, files: dict[str, str] | None = None, *, model: str | None = None, **execution: Any
) -> Path:
    """Write a job file."""
    execution = {"command": command, "completionTime": "10m", "resources": {"memory": 256}, **execution}
    file = folder / "job.yaml"
    job = {"name": "by-hand", "model": model, "execution": execution}
    file.write_text(json.dumps({"job": job, "files": files or {}}))
    return file
