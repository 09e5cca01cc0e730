"""Features that Airflow users expect of a task: assets, links, metrics, and a destination for the model."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from airflow_training.local.airflow import LocalAirflow
from tests.airflow.support import Counts, ServiceUnderTest
from tests.patience import wait_for


def test_the_asset_event_of_a_model_carries_its_result(
    airflow: LocalAirflow, under_test: ServiceUnderTest, tmp_path: Path, counts: Counts
) -> None:
    destination = tmp_path / "models" / "a"
    destination.mkdir(parents=True)
    (destination / "saved_model.pb").write_text("the model of yesterday")
    (destination / "left").write_text("of the model of yesterday")
    airflow.wait_for_dag("consumer")
    airflow.wait_for_dag("producer")
    before = counts.count("training.submits")

    run = airflow.trigger("producer", {"destination": str(destination)})
    going = (None, "scheduled", "queued", "running")
    wait_for(lambda: airflow.task("producer", run, "train")["state"] not in going, "The deferral")
    (job,) = [job for job in under_test.jobs("train") if not job.state.ended]
    link = airflow.api("GET", f"/dags/producer/dagRuns/{run}/taskInstances/train/links")["extra_links"]["Training job"]
    assert link == f"{airflow.url}/dags/producer/runs/{quote(run)}/tasks/train/plugin/training"
    (under_test.work(job) / "go").touch()
    assert airflow.wait_for_run("producer", run) == "success", airflow.log("producer", run, "train")

    result = airflow.xcom("producer", run, "train", "training_job")
    assert result["metrics"] == {"accuracy": 0.75, "loss": 1.25}
    assert airflow.xcom("producer", run, "train") == str(destination)
    assert sorted(file.name for file in destination.rglob("*")) == ["saved_model.pb", "variables", "variables.index"]
    assert [folder.name for folder in destination.parent.iterdir()] == ["a"], "nothing is left of the copying"
    assert (under_test.folder(job) / "metrics.json").read_text() == '{"accuracy": 0.75, "loss": 1.25}'
    extra = announced(airflow)
    assert extra == {
        "location": str(destination),
        "job_id": job.job_id,
        "metrics": result["metrics"],
        "duration": result["duration"],
    }
    assert counts.count("training.submits") > before
    assert counts.count("training.log_lag") > 0


def announced(airflow: LocalAirflow) -> object:
    """The event that the consuming Dag got."""

    def runs() -> list[str]:
        return [run["dag_run_id"] for run in airflow.api("GET", "/dags/consumer/dagRuns")["dag_runs"]]

    wait_for(lambda: bool(runs()), "A run of the Dag that waits for the model")
    (run,) = runs()
    assert airflow.wait_for_run("consumer", run) == "success"
    return airflow.xcom("consumer", run, "deploy")


def test_a_sweep_survives_a_member_that_failed_and_knows_the_parameters_of_the_best(airflow: LocalAirflow) -> None:
    airflow.wait_for_dag("sweep")
    run = airflow.trigger("sweep")

    assert airflow.wait_for_run("sweep", run) == "success"
    states = {one["map_index"]: one["state"] for one in airflow.tasks("sweep", run) if one["task_id"] == "train"}
    assert states == {0: "failed", 1: "success", 2: "success"}
    found = airflow.xcom("sweep", run, "best")
    assert found["succeeded"] == [1, 2]
    assert found["winner"]["parameters"] == {"env": {"RATE": 0.5}, "environment": {"LEVEL": "info"}}
    assert "s3cret-of-the-sweep" not in str(found)
