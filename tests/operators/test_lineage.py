"""The OpenLineage facets of a training, requested as its provider does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.openlineage.extractors import ExtractorManager, OperatorLineage
from airflow.sdk import DAG, Asset, ObjectStoragePath, task
from airflow.utils.state import TaskInstanceState
from openlineage.client.event_v2 import Dataset

from airflow_training.exceptions import JobFailed
from airflow_training.operators.claim import Claim
from airflow_training.operators.training import TrainingOperator
from tests.operators.support import resume

FOLDER = Path(__file__).parent
MINIMAL: dict[str, Any] = {"job_name": "census", "image": "i", "completion_time": "1h", "script": "print(1)\n"}


def training(**values: Any) -> TrainingOperator:
    with DAG("trainings", schedule=None):
        return TrainingOperator(task_id="train", **MINIMAL | values)


def facets_of(operator: Any, state: TaskInstanceState = TaskInstanceState.RUNNING) -> OperatorLineage[Any, Any]:
    return ExtractorManager().extract_metadata(SimpleNamespace(run_id="run"), operator, state, None)


def names(datasets: list[Dataset]) -> list[tuple[str, str]]:
    return [(dataset.namespace, dataset.name) for dataset in datasets]


def read_by(**values: Any) -> list[tuple[str, str]]:
    return names(facets_of(training(**values)).inputs)


def test_script_and_data_are_known_from_the_start() -> None:
    data = {
        "here.csv": "data/../here.csv",
        "there.csv": Path("/data/there.csv"),
        "uri.csv": "file:///data/uri.csv",
        "stored.csv": "s3://aws_default@lake/stored.csv",
        "folder": ObjectStoragePath("gcs://lake/folder/"),
        "asset.csv": Asset("s3://lake/asset.csv"),
        "raw.bin": b"\0\1",
        "again.csv": "/data/there.csv",
    }

    assert read_by(script="support.py", data=data) == [
        ("file", f"{FOLDER}/support.py"),
        ("file", f"{FOLDER}/here.csv"),
        ("file", "/data/there.csv"),
        ("file", "/data/uri.csv"),
        ("s3://lake", "stored.csv"),
        ("gs://lake", "folder"),
        ("s3://lake", "asset.csv"),
    ]


def test_the_config_counts() -> None:
    data = {"a.csv": "/data/a.csv"}

    assert read_by(data={"a.csv": "/data/b.csv"}, config={"data": json.dumps(data)}) == [("file", "/data/a.csv")]


@pytest.mark.parametrize("deferred", ["success", "destination"])
def test_the_model_and_the_job_are_known_after_a_deferral(claim: Claim, deferred: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "model") if deferred == "destination" else None
    operator = training(data={"a.csv": "/data/a.csv"}, training_conn_id="training_test", model_destination=copy)
    resume(operator, "SUCCEEDED", claim)

    lineage = facets_of(operator, TaskInstanceState.SUCCESS)

    assert names(lineage.inputs) == [("file", "/data/a.csv")]
    where = ("file", copy) if copy else ("training://training_test@data", f"{claim.folder}/model/1")
    assert names(lineage.outputs) == [where]
    assert lineage.run_facets["externalQuery"].externalQueryId == claim.job_id
    assert lineage.run_facets["externalQuery"].source == "training://training_test"


def test_a_failed_job_has_inputs_and_no_outputs(claim: Claim) -> None:
    operator = training(data={"a.csv": "/data/a.csv"}, training_conn_id="training_test")
    with pytest.raises(JobFailed):
        resume(operator, "FAILED", claim)

    lineage = facets_of(operator, TaskInstanceState.FAILED)

    assert names(lineage.inputs) == [("file", "/data/a.csv")]
    assert not lineage.outputs
    assert lineage.run_facets["externalQuery"].externalQueryId == claim.job_id


def test_the_inputs_of_a_function_are_known_too() -> None:
    with DAG("trainings", schedule=None) as dag:

        @task.training(image="i", completion_time="1h", data={"a.csv": "/data/a.csv"})
        def train() -> None: ...

        train()

    assert names(facets_of(dag.get_task("train")).inputs) == [("file", "/data/a.csv")]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://key:5ecret@lake/a.csv", [("s3://lake", "a.csv")]),
        ("s3a://lake/a.csv?X-Amz-Signature=5ecret", [("s3://lake", "a.csv")]),
        ("https://user:5ecret@example.com:8443/a.csv#5ecret", [("https://example.com:8443", "a.csv")]),
        ("training://training_test:5ecret@data/models/1", [("training://training_test@data", "models/1")]),
        ("training://data/models/1", [("training://training_default@data", "models/1")]),
        ("s3://key:5e/cret@lake/a.csv", []),
        ("s3://key:123/5ecret@lake/a.csv", []),
        ("simplecache::s3://key:5ecret@lake/a.csv", []),
        ("zip://a/b.csv::s3://key:5ecret@lake/a.zip", []),
        ("s3://[lake/a.csv", []),
    ],
)
def test_a_dataset_name_is_canonical_and_contains_no_secret(uri: str, name: list[tuple[str, str]]) -> None:
    assert read_by(data={"a.csv": uri}) == name


@pytest.mark.parametrize("wrong", [{"config": "{"}, {"data": 5}, {"script": 5}, {"image": None}])
def test_an_invalid_training_has_no_inputs(wrong: dict[str, Any]) -> None:
    operator = training(data={"a.csv": "/data/a.csv"})
    # As by a template: in the Dag file, these are import errors.
    for name, value in wrong.items():
        setattr(operator, name, value)
    assert names(facets_of(operator).inputs) == []


def test_data_without_a_location_does_not_affect_the_others() -> None:
    assert read_by(data={"a.csv": "/data/a.csv", "b.csv": object()}) == [("file", "/data/a.csv")]
