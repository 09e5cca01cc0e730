"""The example Dags, on a real Airflow with the real libraries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_training.local.airflow import LocalAirflow
from airflow_training.serving import versions
from tests.airflow.support import READ_DAGS_ONCE, ServiceUnderTest
from tests.engines.mlflow_server import running_mlflow
from tests.engines.pytorch import TORCHRUN, require_pytorch
from tests.patience import PATIENCE, wait_for

# They have an Airflow of their own.
pytestmark = [pytest.mark.xdist_group("examples"), pytest.mark.slow]

DAGS = Path(__file__).parents[2] / "dags"

# In dags/train_pytorch.py: its wheels are replaced with Debian's packages.
WHEELS = {
    '"torchrun --standalone --nproc-per-node 2"': f'"{TORCHRUN} --standalone --nproc_per_node 2"',
    '["torch==2.13.0", "pandas==2.3.3"]': "None",
}


class Examples:
    """An Airflow with the example Dags, paused like all new Dags, and their deployment folder."""

    def __init__(self, airflow: LocalAirflow, models: Path) -> None:
        self.airflow = airflow
        self.model = models / "census"

    def start(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        self.airflow.unpause(dag_id)
        return self.airflow.trigger(dag_id, conf)

    def end(self, dag_id: str, run: str, expected: str = "success") -> None:
        state = self.airflow.wait_for_run(dag_id, run)
        assert state == expected, [(task["task_id"], task["state"]) for task in self.airflow.tasks(dag_id, run)]

    def states(self, dag_id: str, run: str) -> dict[str, str]:
        return {task["task_id"].split(".")[-1]: task["state"] for task in self.airflow.tasks(dag_id, run)}

    def wait_for_state(self, dag_id: str, run: str, task_id: str, state: str) -> None:
        wait_for(
            lambda: self.airflow.task(dag_id, run, task_id)["state"] == state,
            f"{task_id} of {run} in the state {state}",
        )

    def approve(self, dag_id: str, run: str, task_id: str) -> None:
        """Approve, but not faster than a person could.

        Airflow 3.3 fails a task that resumes before the scheduler has noticed its deferral: it takes the worker's late
        "success" for a task that was killed while it was queued.
        """
        self.wait_for_state(dag_id, run, task_id, "awaiting_input")
        given_back = f"TaskInstance Finished: dag_id={dag_id}, task_id={task_id}, run_id={run},"
        scheduler = self.airflow.components["scheduler"].output
        wait_for(lambda: given_back in scheduler.read_text(), f"{task_id} given back")
        approval = f"/dags/{dag_id}/dagRuns/{run}/taskInstances/{task_id}/-1/hitlDetails"
        self.airflow.api("PATCH", approval, body={"chosen_options": ["Approve"], "params_input": {}})

    def runs(self, dag_id: str) -> list[str]:
        return [run["dag_run_id"] for run in self.airflow.api("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, under_test: ServiceUnderTest) -> Iterator[Examples]:
    models = tmp_path_factory.mktemp("models")
    settings = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True", "MODELS_FOLDER": str(models), **READ_DAGS_ONCE}
    dags = shutil.copytree(DAGS, tmp_path_factory.mktemp("dags") / "dags")
    pytorch = dags / "train_pytorch.py"
    text = pytorch.read_text()
    for wheel, package in WHEELS.items():
        assert wheel in text
        text = text.replace(wheel, package)
    pytorch.write_text(text)
    airflow = LocalAirflow(tmp_path_factory.mktemp("examples"), dags, settings)
    airflow.patience = PATIENCE
    try:
        airflow.migrate()
        airflow.start()
        airflow.connect("training_default", under_test.local.url, under_test.credentials)
        yield Examples(airflow, models)
    finally:
        airflow.stop()


@pytest.fixture(scope="module")
def deployed(examples: Examples) -> str:
    """The location of a nightly model, which the asset event deployed as version 1."""
    examples.airflow.unpause("deploy_census")
    # Airflow then starts the run of last night only.
    examples.airflow.unpause("train_nightly")
    wait_for(lambda: bool(examples.runs("train_nightly")), "The run of last night")
    (run,) = examples.runs("train_nightly")
    examples.end("train_nightly", run)
    wait_for(lambda: bool(examples.runs("deploy_census")), "The run that deploys the model")
    (deployment,) = examples.runs("deploy_census")
    examples.end("deploy_census", deployment)
    return str(examples.airflow.xcom("train_nightly", run, "train"))


def test_the_model_of_the_night_is_deployed(examples: Examples, deployed: str) -> None:
    assert len(examples.runs("train_nightly")) == 1
    assert versions(examples.model) == [1]
    assert (examples.model / "1" / "saved_model.pb").is_file()
    (deployment,) = examples.runs("deploy_census")
    states = examples.states("deploy_census", deployment)
    assert (states["validate"], states["approve"], states["smoke_test"], states["roll_back"]) == (
        "success",
        "skipped",
        "success",
        "skipped",
    )


def test_a_model_is_deployed_after_an_approval_and_rolled_back_when_it_does_not_predict(
    examples: Examples, deployed: str, under_test: ServiceUnderTest
) -> None:
    run = examples.start("train_and_deploy", {"approval": True})
    examples.wait_for_state("train_and_deploy", run, "deployment.approve", "awaiting_input")
    measured = examples.airflow.xcom("train_and_deploy", run, "deployment.validate", "training_job")["metrics"]
    assert measured["deployed_accuracy"] > 0.8, "it was compared with the deployed one"
    assert versions(examples.model) == [1]

    earlier = {job.job_id for job in under_test.jobs("smoke-test-census")}
    examples.approve("train_and_deploy", run, "deployment.approve")

    def smoke_test() -> list[Any]:
        return [job for job in under_test.jobs("smoke-test-census") if job.job_id not in earlier]

    wait_for(lambda: bool(smoke_test()), "The smoke test")
    assert versions(examples.model) == [1, 2]
    under_test.cancel(smoke_test()[0])

    examples.end("train_and_deploy", run, "failed")
    assert versions(examples.model) == [1]


def test_an_invalid_model_is_not_deployed(examples: Examples, deployed: str, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_text("nonsense")
    (asset,) = examples.airflow.api("GET", "/assets", name_pattern="census_model")["assets"]
    before = set(examples.runs("deploy_census"))

    event = {"asset_id": asset["id"], "extra": {"location": str(tmp_path)}}
    examples.airflow.api("POST", "/assets/events", body=event)

    wait_for(lambda: set(examples.runs("deploy_census")) > before, "The run for the event")
    (run,) = set(examples.runs("deploy_census")) - before
    examples.end("deploy_census", run, "failed")
    assert examples.states("deploy_census", run)["deploy"] == "upstream_failed"
    assert versions(examples.model) == [1]


def test_the_values_of_the_form_are_the_parameters_of_the_training(examples: Examples) -> None:
    run = examples.start("train_on_demand", {"epochs": 1, "batch_size": 512, "job_name": "by-hand"})

    examples.end("train_on_demand", run)
    result = examples.airflow.xcom("train_on_demand", run, "train", "training_job")
    assert result["status"]["name"] == "by-hand"
    assert result["metrics"]["epochs"] == 1


def test_many_models_are_trained_and_the_best_is_found_though_one_failed(
    examples: Examples, under_test: ServiceUnderTest
) -> None:
    run = examples.start("train_many", {"models": 3})
    wait_for(lambda: bool(under_test.jobs("train-many")), "The first training")
    under_test.cancel(under_test.jobs("train-many")[0])

    examples.end("train_many", run)
    tasks = [task for task in examples.airflow.tasks("train_many", run) if task["task_id"] == "train"]
    assert sorted(task["rendered_map_index"] for task in tasks) == ["seed 1", "seed 2", "seed 3"]
    assert sorted(task["state"] for task in tasks) == ["failed", "success", "success"]
    best = examples.airflow.xcom("train_many", run, "best")
    assert best["metrics"]["accuracy"] > 0.8
    assert best["parameters"]["env"] == {"SEED": best["map_index"] + 1, "EPOCHS": 4}


def test_a_model_of_scikit_learn_is_validated_and_predicts(examples: Examples) -> None:
    examples.airflow.unpause("predict_census")
    run = examples.start("train_sklearn")

    examples.end("train_sklearn", run)
    trained = examples.airflow.xcom("train_sklearn", run, "train", "training_job")
    assert trained["location"].endswith("/model.joblib")
    assert trained["metrics"]["accuracy"] > 0.86

    wait_for(lambda: bool(examples.runs("predict_census")), "The run for the new model")
    (prediction,) = examples.runs("predict_census")
    examples.end("predict_census", prediction)
    validated = examples.airflow.xcom("predict_census", prediction, "validate", "training_job")
    assert validated["metrics"] == trained["metrics"], "it is the same model"
    assert 3_000 < examples.airflow.xcom("predict_census", prediction, "count") < 4_000


def test_torchrun_trains_a_model_of_pytorch_in_two_processes(examples: Examples) -> None:
    require_pytorch()
    run = examples.start("train_pytorch")

    examples.end("train_pytorch", run)
    trained = examples.airflow.xcom("train_pytorch", run, "train", "training_job")
    assert trained["location"].endswith("/model.pt")
    assert trained["metrics"]["accuracy"] > 0.84
    log = "\n".join(str(line["event"]) for line in examples.airflow.log("train_pytorch", run, "train"))
    assert "rank 0 of 2: 16281 rows" in log
    assert "rank 1 of 2: 16281 rows" in log


def test_a_training_is_tracked_and_its_model_registered_in_mlflow(examples: Examples, tmp_path: Path) -> None:
    with running_mlflow(tmp_path) as mlflow:
        variable = {"key": "mlflow_tracking_uri", "value": mlflow.url}
        examples.airflow.api("POST", "/variables", body=variable)
        run = examples.start("train_mlflow")
        examples.end("train_mlflow", run)

        experiment = mlflow.ask("GET", "experiments/get-by-name", experiment_name="census")["experiment"]
        (tracked,) = mlflow.ask("POST", "runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
        (registered,) = mlflow.ask("GET", "model-versions/search", filter="name='census'")["model_versions"]

    trained = examples.airflow.xcom("train_mlflow", run, "train", "training_job")
    assert trained["location"].endswith("/model")
    tags = {tag["key"]: tag["value"] for tag in tracked["data"]["tags"]}
    task = {"AIRFLOW_CTX_DAG_ID": "train_mlflow", "AIRFLOW_CTX_TASK_ID": "train", "AIRFLOW_CTX_DAG_RUN_ID": run}
    assert task.items() <= tags.items()
    metrics = {metric["key"]: metric["value"] for metric in tracked["data"]["metrics"]}
    assert metrics == trained["metrics"]
    assert (registered["run_id"], registered["status"]) == (tracked["info"]["run_id"], "READY")
