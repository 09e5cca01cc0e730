"""A Dag trains on a real Airflow and a real service."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.service import Credentials, LocalService
from tests.airflow.conftest import DAGS
from tests.airflow.support import lines_of
from tests.patience import wait_for


def run_to_the_end(airflow: LocalAirflow, dag_id: str, conf: dict[str, Any] | None = None) -> str:
    airflow.wait_for_dag(dag_id)
    run = airflow.trigger(dag_id, conf)
    assert airflow.wait_for_run(dag_id, run) == "success", airflow.log(dag_id, run, "train")
    return run


def job_folders(service: LocalService, name: str) -> list[Path]:
    return list(service.data.glob(f"tenants/*/data/jobs/{name}-*"))


def worker_is_alive(task: dict[str, Any]) -> bool:
    """Whether the process that ran the task exists; a later process may have the same id."""
    started = datetime.fromisoformat(task["start_date"].replace("Z", "+00:00"))
    try:
        return psutil.Process(task["pid"]).create_time() <= started.timestamp()
    except psutil.NoSuchProcess:
        return False


class WaitingTraining:
    """A run of the Dag whose script prints lines until the test lets it continue."""

    def __init__(self, airflow: LocalAirflow, service: LocalService) -> None:
        self.airflow = airflow
        self.service = service
        airflow.wait_for_dag("waiting")
        self.run = airflow.trigger("waiting")
        wait_for(lambda: self.task()["state"] == "deferred", "The deferral")

    def task(self) -> dict[str, Any]:
        return self.airflow.task("waiting", self.run, "train")

    def lines(self) -> list[str]:
        return lines_of(self.airflow.log("waiting", self.run, "train"))

    def wait_for_line(self, line: str) -> None:
        wait_for(lambda: line in self.lines(), f"The line {line!r}")

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        return self.airflow.xcom("waiting", self.run, task_id, key)

    def folder(self) -> Path:
        job_id = self.xcom("train", "training_status")["job_id"]
        (folder,) = self.service.data.glob(f"tenants/*/data/jobs/waiting-{job_id}")
        return folder

    def go_on(self) -> None:
        job_id = self.xcom("train", "training_status")["job_id"]
        (work,) = self.service.data.glob(f"jobs/*/{job_id}/files")
        (work / "go").touch()
        assert self.airflow.wait_for_run("waiting", self.run) == "success"
        waiting = [line for line in self.lines() if line.startswith("waiting ")]
        assert waiting == [f"waiting {number}" for number in range(1, len(waiting) + 1)], "none lost, none twice"


def test_a_training_occupies_no_worker_and_returns_its_model(airflow: LocalAirflow, service: LocalService) -> None:
    training = WaitingTraining(airflow, service)
    training.wait_for_line("waiting 3")
    assert "arguments --train_data=data.csv" in training.lines()
    variables = (line for line in training.lines() if re.match(r"(AIRFLOW_CTX|TRAINING)_\w+=", line))
    # A run that was started by hand has no logical date.
    assert dict(line.split("=", 1) for line in variables) == {
        "AIRFLOW_CTX_DAG_ID": "waiting",
        "AIRFLOW_CTX_TASK_ID": "train",
        "AIRFLOW_CTX_DAG_RUN_ID": training.run,
        "AIRFLOW_CTX_TRY_NUMBER": "1",
        "AIRFLOW_CTX_DAG_OWNER": "airflow",
        "TRAINING_JOB_ID": training.xcom("train", "training_job_id"),
    }
    training.wait_for_line("waiting 12")
    deferred = training.task()
    assert deferred["state"] == "deferred"
    wait_for(lambda: not worker_is_alive(deferred), "The end of the worker's process")
    assert training.xcom("train", "training_status")["status"] == "RUNNING"

    training.go_on()

    folder = training.folder()
    location = training.xcom("train")
    assert location == f"training://training_default@data/jobs/{folder.name}/model/1"
    assert training.xcom("read_model") == "model"
    result = training.xcom("train", "training_job")
    assert result["location"] == location
    assert result["job_id"] == folder.name.removeprefix("waiting-")
    assert result["status"]["status"] == "SUCCEEDED"
    assert result["duration"] > 0
    assert training.xcom("train", "training_status") == result["status"]
    assert "saved" in training.lines()


def test_a_training_survives_a_crash_of_the_service(airflow: LocalAirflow, service: LocalService) -> None:
    training = WaitingTraining(airflow, service)
    training.wait_for_line("waiting 3")

    service.process.kill()
    service.start()
    number = len(training.lines())
    wait_for(lambda: len(training.lines()) > number + 5, "More of the job's log")

    training.go_on()
    assert training.xcom("read_model") == "model"


@pytest.mark.slow
def test_lines_keep_the_time_at_which_they_were_written(airflow: LocalAirflow) -> None:
    run = run_to_the_end(airflow, "by_hand", {})
    result = airflow.xcom("by_hand", run, "train", "training_job")

    times = [e["timestamp"] for e in airflow.log("by_hand", run, "train") if "[service] Running" in e["event"]]

    assert len(times) == 1
    assert result["status"]["submissionTime"][:19] <= times[0][:19] <= result["status"]["finishTime"][:19]


def test_the_worker_can_follow_the_job_itself(airflow: LocalAirflow) -> None:
    run = run_to_the_end(airflow, "in_the_worker")

    assert airflow.xcom("in_the_worker", run, "train").endswith("/model/1")
    assert airflow.xcom("in_the_worker", run, "train", "training_status")["status"] == "SUCCEEDED"


def test_a_program_with_jinja_braces_is_sent_unchanged(airflow: LocalAirflow) -> None:
    run = run_to_the_end(airflow, "in_the_worker")

    assert airflow.xcom("in_the_worker", run, "train", "training_job")["metrics"] == {"loss": 0.5}


def test_a_manual_run_overrides_parameters_in_either_spelling(airflow: LocalAirflow) -> None:
    run = run_to_the_end(airflow, "by_hand", {"jobName": "by-hand", "completion_time": "5m"})

    assert "/jobs/by-hand-" in airflow.xcom("by_hand", run, "train")


def test_airflow_dags_test_runs_a_training_in_the_terminal_and_reports_its_model_to_openlineage(
    tmp_path: Path, service: LocalService, credentials: Credentials
) -> None:
    # An Airflow without running components: a scheduler might take the run for its own, and be first.
    connection = {
        "conn_type": "training",
        "host": service.url,
        "login": credentials.client_id,
        "password": credentials.client_secret,
    }
    lineage = tmp_path / "lineage.jsonl"
    settings = {
        "AIRFLOW_CONN_TRAINING_DEFAULT": json.dumps(connection),
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(lineage), "append": True}),
    }
    airflow = LocalAirflow(tmp_path, DAGS, settings)
    airflow.migrate()

    printed = airflow.command("dags", "test", "by_hand")

    assert "[service] Running: python3 train.py" in printed
    assert "The SavedModel is at training://training_default@data/jobs/by-plan-" in printed
    events = [json.loads(line) for line in lineage.read_text().splitlines()]
    (end,) = [e for e in events if e["job"]["name"] == "by_hand.train" and e["eventType"] == "COMPLETE"]
    assert [(model["namespace"], model["name"].split("/")[-2:]) for model in end["outputs"]] == [
        ("training://training_default@data", ["model", "1"])
    ]


def test_mapped_tasks_train_one_model_each(airflow: LocalAirflow, service: LocalService) -> None:
    airflow.wait_for_dag("mapped")
    run = airflow.trigger("mapped")

    assert airflow.wait_for_run("mapped", run) == "success"
    models = [
        folder / "model/1/saved_model.pb" for name in ("first", "second") for folder in job_folders(service, name)
    ]
    assert len(models) == 2
    assert all(model.is_file() for model in models)
