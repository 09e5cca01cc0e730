"""The error of a training: one clear sentence, and no secret."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.service import Credentials, LocalService

DAG = "mistakes"
SENTENCES = {
    "wrong-secret": r"refused the client 'tests': .*Check login and password of the connection\. \[AT-141\]$",
    "no-service": r"No token could be fetched from http://127\.0\.0\.1:\d+: Connection refused\. Check that the OAuth2",
    "no-connection": r"There is no connection 'training_not_there': create it",
    "unknown-script": r"1 error: script does not exist: .*/no_such_script\.py\. \[AT-001\]$",
    "many-mistakes": (
        r"3 errors: resources\.cpus must be a whole number, 1 or more, not 'many'; "
        r"python_major_version must be 2 or 3, not 4; "
        r"data 'a\.csv' does not exist: .*no_such\.csv\. \[AT-001\]$"
    ),
    "exits-3": (
        r"The training job exits-3 .* failed: .* status 3 \[AT-451\]\. Fix .* clear the task .*\. \[AT-401\]\n"
        r"(.*\n)*the last line$"
    ),
    "no-model": r"succeeded but left no SavedModel .* and no other file\. Save the model in .*\. \[AT-403\]$",
    "wrong-model": r"left no model\.joblib, only model/1/saved_model\.pb\. Save .* set `model` to its path .*",
    "no-model-in-the-worker": r"succeeded but left no SavedModel",
}
NEVER_SENT = ("wrong-secret", "no-service", "no-connection", "unknown-script", "many-mistakes")


@pytest.fixture(scope="module")
def run(airflow: LocalAirflow) -> str:
    """A run in which every task fails."""
    airflow.wait_for_dag(DAG)
    run = airflow.trigger(DAG)
    assert airflow.wait_for_run(DAG, run) == "failed"
    return run


def failure(airflow: LocalAirflow, run: str, task_id: str) -> list[dict[str, Any]]:
    """The exceptions in the task log, last one first."""
    (entry,) = [entry for entry in airflow.log(DAG, run, task_id) if entry.get("error_detail")]
    details: list[dict[str, Any]] = entry["error_detail"]
    return details


@pytest.mark.parametrize("task_id", sorted(SENTENCES))
def test_the_task_fails_with_one_sentence_that_says_what_to_do(airflow: LocalAirflow, run: str, task_id: str) -> None:
    assert airflow.task(DAG, run, task_id)["state"] == "failed"
    details = failure(airflow, run, task_id)

    assert len(details) == 1, "no chain of causes is shown"
    assert re.search(SENTENCES[task_id], details[0]["exc_value"]), details[0]["exc_value"]


@pytest.mark.parametrize("task_id", sorted(SENTENCES))
def test_no_stack_of_a_library_is_shown(airflow: LocalAirflow, run: str, task_id: str) -> None:
    (detail,) = failure(airflow, run, task_id)

    files = [frame["filename"] for frame in detail["frames"]]
    assert all("/airflow" in file for file in files), files


@pytest.mark.parametrize("task_id", sorted(SENTENCES))
def test_no_secret_is_in_the_log(
    airflow: LocalAirflow, run: str, task_id: str, credentials: Credentials, service: LocalService
) -> None:
    text = str(airflow.log(DAG, run, task_id))

    assert credentials.client_secret not in text
    assert "wr0ng-s3cr3t" not in text
    assert "eyJ" not in text, "no token either"


@pytest.mark.parametrize("task_id", NEVER_SENT)
def test_nothing_is_uploaded_for_what_can_be_rejected_before(service: LocalService, run: str, task_id: str) -> None:
    assert not list(service.data.glob(f"tenants/*/data/jobs/{task_id}-*"))
