"""The result of a training: its metrics, and its choice among several models."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.exceptions import AirflowFailException

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
    assert "Found several SavedModels, using model/1; ignored: checkpoints/100" in lines


@pytest.mark.parametrize(
    ("model", "location"),
    [("out/*.onnx", "/out/b.onnx"), ("out", "/out"), ("./out/b.onnx", "/out/b.onnx"), (None, "")],
)
def test_a_job_hands_on_what_the_task_names(
    task: TrainingOperator, claim: Claim, model: str | None, location: str
) -> None:
    folder = ObjectStoragePath(f"training://{claim.training_conn_id}@data/{claim.folder}")
    for name in ("out/a.onnx", "out/b.onnx", "train.py"):
        (folder / name).write_bytes(b"graph")
    claim = replace(claim, model=model, inputs=["out/a.onnx"], code_files=["train.py"])

    assert resume(task, "SUCCEEDED", claim)["location"] == f"{folder}{location}"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("model.joblib", r"succeeded but left no model\.joblib, only model/1/saved_model\.pb\. Save .* or to None for"),
        ("m*.pt", r"succeeded but left no m\*\.pt, only model/1/saved_model\.pb\."),
    ],
)
def test_a_job_without_its_model_fails_for_good_and_names_what_it_left(
    task: TrainingOperator, claim: Claim, model: str, message: str
) -> None:
    context: Any = {"ti": Mock(map_index=-1), "task_state_store": Mock()}
    event = {"job_id": claim.job_id, "status": {"job_id": claim.job_id, "status": "SUCCEEDED"}}

    with pytest.raises(AirflowFailException, match=message):
        task.execute_complete(context, {**event, "last_lines": [], "metrics": {}}, asdict(replace(claim, model=model)))

    stored = context["task_state_store"].set.call_args.args[1]
    assert stored["over"], "a cleared task starts a new job"


def test_a_copied_file_is_at_the_returned_location(task: TrainingOperator, claim: Claim, tmp_path: Path) -> None:
    task.model_destination = str(tmp_path / "models")

    location = resume(task, "SUCCEEDED", replace(claim, model="model/1/saved_model.pb"))["location"]

    assert location == str(tmp_path / "models" / "saved_model.pb")
    assert Path(location).read_bytes() == b"graph"
