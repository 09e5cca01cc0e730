"""Secrets that Airflow masks on a worker are shown nowhere, whether worker or triggerer follows the job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from airflow_training.api.status import JobStatus
from airflow_training.local.airflow import LocalAirflow
from tests.airflow.support import BOTH, ServiceUnderTest, Training, places
from tests.airflow.test_training_page import Browser, ref_of

Train = Callable[..., Training]

PASSWORD = "wb'5ecret 0f"
SHOWN = [
    "[service] Running: python3 show_secrets.py '--tracker=***' '--store=https://user:***@host' --api_key=*** ***"
    " --epochs=5",
    """arguments ["--tracker=***", "--store=https://user:***@host", '--api_key=***', '***', '--epochs=5']""",
    "variables *** https://user:***@host ***",
    "ready",
    "again ***",
    "ended with https://user:***@host",
]


@pytest.fixture
def _tracker(airflow: LocalAirflow) -> Iterator[None]:
    """A connection whose password a Dag passes to its job."""
    airflow.api("POST", "/connections", body={"connection_id": "tracker", "conn_type": "generic", "password": PASSWORD})
    yield
    airflow.api("DELETE", "/connections/tracker")


@pytest.mark.usefixtures("_tracker")
@pytest.mark.parametrize("where", BOTH)
def test_secrets_that_airflow_masks_are_shown_nowhere_and_everything_else_is(
    train: Train, airflow: LocalAirflow, under_test: ServiceUnderTest, where: str
) -> None:
    training = train(f"secret_{where}", script="scripts/show_secrets.py")
    training.wait_for_line("ready")
    trigger = str(training.task["trigger"])
    if where == "deferred":
        # The next triggerer knows even less than the worker.
        triggerer = airflow.components["triggerer"]
        triggerer.stop(grace=60)
        triggerer.start()
    training.go_on()

    training.end("failed")

    (job,) = training.jobs
    assert [line for line in training.lines() if line in SHOWN] == SHOWN
    assert "ended with https://user:***@host" in training.failure()[1]
    shown = [
        trigger,
        *places(airflow, training),
        *_of_the_command_line(under_test, job),
        *_of_the_page(airflow, training),
    ]
    for place in (*shown, _of_the_service(under_test, job)):
        for secret in (PASSWORD, "5ecret", "pl4in-text", "qz7"):
            assert secret not in place


def _of_the_command_line(service: ServiceUnderTest, job: JobStatus) -> Iterator[str]:
    credentials = service.credentials
    connection = {
        "TRAINING_URL": service.local.url,
        "TRAINING_CLIENT_ID": credentials.client_id,
        "TRAINING_CLIENT_SECRET": credentials.client_secret,
    }
    for command in ("status", "logs"):
        words = [sys.executable, "-m", "airflow_training.cli.main", command, job.job_id]
        yield subprocess.run(words, env=os.environ | connection, capture_output=True, text=True, check=True).stdout


def _of_the_page(airflow: LocalAirflow, training: Training) -> Iterator[str]:
    with closing(Browser(airflow, "admin")) as browser:
        page = {path: browser.read(path, **ref_of(training)) for path in ("job", "log")}
    assert SHOWN[0] in str([record["line"] for record in page["log"]["records"]]).replace("\\'", "'")
    yield str(page)


def _of_the_service(service: ServiceUnderTest, job: JobStatus) -> str:
    """The service's own log, and its copy of the job's log."""
    (state,) = service.local.data.glob(f"jobs/*/{job.job_id}")
    files = [service.local.process.output, *state.glob("log.*"), state / "supervisor.log", state / "exit.json"]
    return "".join(file.read_text(errors="replace") for file in files)
