"""Models of any library, a folder and nothing: each trains with the operator, deferred; all train at once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from airflow_training.local.airflow import LocalAirflow
from tests.airflow.support import ServiceUnderTest
from tests.engines.pytorch import require_pytorch
from tests.patience import wait_for

pytestmark = pytest.mark.slow

DAG = "any_model"


@dataclass(frozen=True)
class Expected:
    """What a training hands on.

    Attributes:
        path: Its path in the job folder.
        files: Some of its files in the bucket, in that folder.
        format: Its format on the training page.
        inputs: The shapes of its inputs; None if they cannot be read.
    """

    path: str
    files: tuple[str, ...]
    format: str = ""
    inputs: list[list[int | None] | None] | None = None


EXPECTED = {
    "scikit-learn": Expected("model.joblib", ("model.joblib",)),
    "xgboost": Expected("out/model.json", ("model.json",)),
    "pytorch": Expected("best.pt", ("best.pt",)),
    "onnx": Expected("export/10", ("model.onnx",), "ONNX", [[None, 2]]),
    "mlflow": Expected("model", ("MLmodel",), "MLflow", [[None, 2]]),
    "folder": Expected("tokenizer", ("vocabulary.json", "merges/merges.txt")),
    "nothing": Expected(".", ("predictions.csv", "metrics.json")),
}


@pytest.fixture(scope="module")
def run(airflow: LocalAirflow) -> str:
    """A run in which all train."""
    airflow.wait_for_dag(DAG)
    return airflow.trigger(DAG)


@pytest.fixture(params=EXPECTED)
def trained(request: pytest.FixtureRequest, airflow: LocalAirflow, run: str) -> str:
    """A task that has trained."""
    name: str = request.param
    if name == "pytorch":
        require_pytorch()

    def has_ended() -> bool:
        return airflow.task(DAG, run, name)["state"] in {"success", "failed"}

    wait_for(has_ended, f"The end of {name}")
    assert airflow.task(DAG, run, name)["state"] == "success", airflow.log(DAG, run, name)
    return name


def test_a_training_of_any_library_hands_on_its_model(
    airflow: LocalAirflow, under_test: ServiceUnderTest, run: str, trained: str
) -> None:
    expected = EXPECTED[trained]
    (job,) = [job for job in under_test.jobs(trained) if job.state.ended]
    result = airflow.xcom(DAG, run, trained, "training_job")

    folder = f"training://training_default@data/jobs/{trained}-{job.job_id}"
    location = folder if expected.path == "." else f"{folder}/{expected.path}"
    assert airflow.xcom(DAG, run, trained) == result["location"] == location
    assert result["metrics"] == {"accuracy": 1.0}
    model = under_test.folder(job) / expected.path
    inside = model if model.is_dir() else model.parent
    assert all((inside / name).is_file() for name in expected.files)
    (event,) = airflow.api("GET", "/assets/events", source_dag_id=DAG, source_run_id=run, source_task_id=trained)[
        "asset_events"
    ]
    assert event["extra"] == {
        "location": location,
        "job_id": job.job_id,
        "metrics": result["metrics"],
        "duration": result["duration"],
    }


def test_the_service_describes_a_model_of_any_library(under_test: ServiceUnderTest, trained: str) -> None:
    expected = EXPECTED[trained]
    (job,) = [job for job in under_test.jobs(trained) if job.state.ended]

    model = under_test.model(job)

    assert (model.path, model.format, model.reason) == (expected.path, expected.format, "")
    assert {file.name for file in model.files} >= set(expected.files)
    inputs = [each.shape for each in model.signatures[0].inputs] if model.signatures else None
    assert inputs == expected.inputs
