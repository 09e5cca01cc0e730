"""`airflow-training check`: a connection is checked from a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_training.client.settings import ClientSettings
from tests.cli.commands import Command, connection_to


def run(home: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "AIRFLOW_HOME": str(home), "XDG_CONFIG_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def check(home: Path, *connection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    named = ("--connection", *connection) if connection else ()
    return run(home, "airflow_training.cli.main", "check", *named, **environment)


def test_each_step_is_reported(tmp_path: Path, settings: ClientSettings) -> None:
    done = check(tmp_path, "training_json", AIRFLOW_CONN_TRAINING_JSON=connection_to(settings))

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
    added = run(tmp_path, "airflow", "connections", "add", "training_db", "--conn-json", connection_to(settings))
    assert added.returncode == 0, added.stderr

    done = check(tmp_path, "training_db")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"password": "wr0ng-s3cret"}, "failed  Token: The OAuth2 server at"),
        ({"host": ""}, "failed  Connection: The connection 'training_wrong' has no host."),
        ({"extra": {"api_version": "v9"}}, "failed  Job API: "),
    ],
)
def test_the_step_that_fails_is_named(
    tmp_path: Path, settings: ClientSettings, changes: dict[str, Any], message: str
) -> None:
    done = check(tmp_path, "training_wrong", AIRFLOW_CONN_TRAINING_WRONG=connection_to(settings, **changes))

    assert done.returncode == 1
    assert message in done.stderr
    assert "wr0ng-s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_connection_is_named(tmp_path: Path) -> None:
    done = check(tmp_path, "no_such")

    assert done.returncode == 1
    assert "There is no connection 'no_such': create it under Admin, Connections" in done.stderr


def test_the_steps_are_available_as_json(command: Command) -> None:
    done = command("check", "--json")

    assert done.code == 0
    assert [step["works"] for step in done.json] == [True] * 4


def test_the_failed_step_is_available_as_json(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINING_CLIENT_SECRET", "wr0ng-s3cret")

    done = command("check", "--json")

    assert done.code == 1
    assert [step["works"] for step in done.json] == [True, False]
    assert "wr0ng-s3cret" not in done.out + done.err
