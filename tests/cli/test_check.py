"""`airflow-training check`: a connection is tried from a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_training.client.settings import ClientSettings


def run(home: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "AIRFLOW_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def check(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(home, "airflow_training.cli.main", "check", *arguments, **environment)


def written(settings: ClientSettings, **changes: Any) -> str:
    """A connection as JSON."""
    host, port = settings.base_url.removeprefix("http://").split(":")
    login = {"login": settings.client_id, "password": settings.client_secret}
    return json.dumps({"conn_type": "training", "schema": "http", "host": host, "port": int(port), **login, **changes})


def test_each_step_is_told(tmp_path: Path, settings: ClientSettings) -> None:
    done = check(tmp_path, "training_json", AIRFLOW_CONN_TRAINING_JSON=written(settings))

    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0].split()[-1] for line in done.stdout.splitlines()] == [
        "Connection",
        "Token",
        "API",
        "Storage",
    ]


def test_a_connection_can_be_a_uri(tmp_path: Path, settings: ClientSettings) -> None:
    address = settings.base_url.removeprefix("http://")
    uri = f"training://{settings.client_id}:{settings.client_secret}@{address}/http"

    done = check(tmp_path, AIRFLOW_CONN_TRAINING_DEFAULT=uri)

    assert done.returncode == 0, done.stderr


def test_a_connection_of_airflows_database_is_found(tmp_path: Path, settings: ClientSettings) -> None:
    assert run(tmp_path, "airflow", "db", "migrate").returncode == 0
    added = run(tmp_path, "airflow", "connections", "add", "training_db", "--conn-json", written(settings))
    assert added.returncode == 0, added.stderr

    done = check(tmp_path, "training_db")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": "wr0ng-s3cret"}, "failed  Token: The OAuth2 server at"),
        ({"host": ""}, "failed  Connection: The connection 'training_wrong' has no host."),
        ({"extra": {"api_version": "v9"}}, "failed  Job API: "),
    ],
)
def test_the_step_that_fails_is_named(
    tmp_path: Path, settings: ClientSettings, changes: dict[str, Any], said: str
) -> None:
    done = check(tmp_path, "training_wrong", AIRFLOW_CONN_TRAINING_WRONG=written(settings, **changes))

    assert done.returncode == 1
    assert said in done.stderr
    assert "wr0ng-s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_connection_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = check(tmp_path, "no_such")

    assert done.returncode == 1
    assert "There is no connection 'no_such': create it under Admin, Connections" in done.stderr
