"""The result of a training: its metrics, and its choice among several models."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_training.exceptions import StorageError
from airflow_training.operators import run
from airflow_training.operators.claim import Claim
from airflow_training.operators.training import TrainingOperator
from tests.operators.support import resume

TOLD = {"accuracy": 0.5, "loss": 1.0}


@pytest.fixture
def task(training_connection: str) -> TrainingOperator:
    return TrainingOperator(
        task_id="train",
        job_name="census",
        script="train.py",
        image="i",
        completion_time="1h",
        training_conn_id=training_connection,
    )


def test_metrics_of_the_file_override_those_of_the_log(task: TrainingOperator, claim: Claim) -> None:
    file = ObjectStoragePath(f"training://{claim.training_conn_id}@data/{claim.folder}/metrics.json")
    file.write_text('{"accuracy": 0.75}')

    assert resume(task, "SUCCEEDED", claim, TOLD)["metrics"] == {"accuracy": 0.75, "loss": 1.0}


def test_a_training_does_not_fail_for_its_metrics(
    task: TrainingOperator, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> None:
        raise StorageError("The storage is full.", code="AT-314")

    monkeypatch.setattr(run, "kept_metrics", full)

    result = resume(task, "SUCCEEDED", claim, TOLD)

    assert result["metrics"] == TOLD
    assert result["location"].endswith("/model/1")


def test_the_log_names_the_models_that_were_passed_over(
    task: TrainingOperator, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = ObjectStoragePath(f"training://{claim.training_conn_id}@data/{claim.folder}/checkpoints/100")
    (checkpoint / "saved_model.pb").write_bytes(b"graph")
    log = Mock()
    monkeypatch.setattr(TrainingOperator, "log", log)

    location = resume(task, "SUCCEEDED", claim)["location"]

    assert location.endswith("/model/1")
    lines = [call.args[0] % call.args[1:] for call in log.info.call_args_list]
    model, passed_over = f"{claim.folder}/model/1", f"{claim.folder}/checkpoints/100"
    assert f"Found several SavedModels, using {model}; ignored: {passed_over}" in lines
