"""A Dag trains on a real Airflow and a real service."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.process import wait_until
from airflow_training.local.service import LocalService

pytestmark = pytest.mark.xdist_group("airflow")


def run_to_the_end(airflow: LocalAirflow, dag_id: str, conf: dict[str, Any] | None = None) -> str:
    airflow.wait_for_dag(dag_id)
    run = airflow.trigger(dag_id, conf)
    assert airflow.wait_for_run(dag_id, run) == "success", airflow.log(dag_id, run, "train")
    return run


def job_folders(service: LocalService, name: str) -> list[Path]:
    return list(service.data.glob(f"tenants/*/data/jobs/{name}-*"))


def worker_is_alive(task: dict[str, Any]) -> bool:
    """Whether the process that ran the task is there; its id may have been given to a younger one since."""
    started = datetime.fromisoformat(task["start_date"].replace("Z", "+00:00"))
    try:
        return psutil.Process(task["pid"]).create_time() <= started.timestamp()
    except psutil.NoSuchProcess:
        return False


def test_a_training_holds_no_worker_and_hands_on_its_model(airflow: LocalAirflow, service: LocalService) -> None:
    airflow.wait_for_dag("waiting")
    run = airflow.trigger("waiting")

    def task() -> dict[str, Any]:
        return airflow.task("waiting", run, "train")

    def lines() -> list[str]:
        return [entry["event"] for entry in airflow.log("waiting", run, "train")]

    wait_until(lambda: task()["state"] == "deferred", "The deferral", timeout=60)
    wait_until(lambda: "waiting 3" in lines(), "The job's log", timeout=30)
    assert "arguments --train_data=data.csv" in lines()
    wait_until(lambda: "waiting 12" in lines(), "More of the job's log", timeout=30)
    deferred = task()
    assert deferred["state"] == "deferred"
    assert not worker_is_alive(deferred)
    assert airflow.xcom("waiting", run, "train", "training_status")["status"] == "RUNNING"

    (folder,) = job_folders(service, "waiting")
    (folder / "go").touch()
    assert airflow.wait_for_run("waiting", run) == "success"

    location = airflow.xcom("waiting", run, "train")
    assert location == f"training://training_default@data/jobs/{folder.name}/model/1"
    assert airflow.xcom("waiting", run, "read_model") == "model"
    result = airflow.xcom("waiting", run, "train", "training_job")
    assert result["location"] == location
    assert result["job_id"] == folder.name.removeprefix("waiting-")
    assert result["status"]["status"] == "SUCCEEDED"
    assert result["duration"] > 0
    assert airflow.xcom("waiting", run, "train", "training_status") == result["status"]
    waiting = [line for line in lines() if line.startswith("waiting ")]
    assert waiting == [f"waiting {number}" for number in range(1, len(waiting) + 1)]
    assert "saved" in lines()


def test_lines_keep_the_time_at_which_they_were_written(airflow: LocalAirflow) -> None:
    run = run_to_the_end(airflow, "by_hand", {})
    result = airflow.xcom("by_hand", run, "train", "training_job")

    times = [e["timestamp"] for e in airflow.log("by_hand", run, "train") if e["event"].startswith("[service] Running")]

    assert len(times) == 1
    assert result["status"]["submissionTime"][:19] <= times[0][:19] <= result["status"]["finishTime"][:19]


def test_the_worker_can_follow_the_job_itself(airflow: LocalAirflow) -> None:
    run = run_to_the_end(airflow, "in_the_worker")

    assert airflow.xcom("in_the_worker", run, "train").endswith("/model/1")
    assert airflow.xcom("in_the_worker", run, "train", "training_status")["status"] == "SUCCEEDED"


def test_a_run_by_hand_overrides_parameters_in_either_spelling(airflow: LocalAirflow) -> None:
    run = run_to_the_end(airflow, "by_hand", {"jobName": "by-hand", "completion_time": "5m"})

    assert "/jobs/by-hand-" in airflow.xcom("by_hand", run, "train")


def test_airflows_dags_test_runs_a_training_in_the_terminal(airflow: LocalAirflow) -> None:
    airflow.wait_for_dag("by_hand")

    printed = airflow.command("dags", "test", "by_hand")

    assert "[service] Running: python3 train.py" in printed
    assert "The SavedModel is at training://training_default@data/jobs/by-plan-" in printed


def test_mapped_tasks_train_one_model_each(airflow: LocalAirflow, service: LocalService) -> None:
    airflow.wait_for_dag("mapped")
    run = airflow.trigger("mapped")

    assert airflow.wait_for_run("mapped", run) == "success"
    models = [
        folder / "model/1/saved_model.pb" for name in ("first", "second") for folder in job_folders(service, name)
    ]
    assert len(models) == 2
    assert all(model.is_file() for model in models)
