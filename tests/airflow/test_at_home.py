"""What users of Airflow expect of a task: assets, links, counters, and the model where they want it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from airflow_training.local.airflow import LocalAirflow
from tests.airflow.support import Counts, ServiceUnderTest
from tests.patience import wait_for


def test_a_model_is_announced_with_all_that_is_known_of_it(
    airflow: LocalAirflow, under_test: ServiceUnderTest, tmp_path: Path, counts: Counts
) -> None:
    wanted = tmp_path / "models" / "a"
    wanted.mkdir(parents=True)
    (wanted / "saved_model.pb").write_text("the model of yesterday")
    (wanted / "left").write_text("of the model of yesterday")
    airflow.wait_for_dag("consumer")
    airflow.wait_for_dag("producer")
    before = counts.count("training.submits")

    run = airflow.trigger("producer", {"destination": str(wanted)})
    going = (None, "scheduled", "queued", "running")
    wait_for(lambda: airflow.task("producer", run, "train")["state"] not in going, "The deferral")
    (job,) = [job for job in under_test.jobs("train") if not job.state.ended]
    link = airflow.api("GET", f"/dags/producer/dagRuns/{run}/taskInstances/train/links")["extra_links"]["Training job"]
    assert link == f"{airflow.url}/dags/producer/runs/{quote(run)}/tasks/train/plugin/training"
    (under_test.work(job) / "go").touch()
    assert airflow.wait_for_run("producer", run) == "success", airflow.log("producer", run, "train")

    told = airflow.xcom("producer", run, "train", "training_job")
    assert told["metrics"] == {"accuracy": 0.75, "loss": 1.25}
    assert airflow.xcom("producer", run, "train") == str(wanted)
    assert sorted(file.name for file in wanted.rglob("*")) == ["saved_model.pb", "variables", "variables.index"]
    assert [folder.name for folder in wanted.parent.iterdir()] == ["a"], "nothing is left of the copying"
    assert (under_test.folder(job) / "metrics.json").read_text() == '{"accuracy": 0.75, "loss": 1.25}'
    extra = announced(airflow)
    assert extra == {
        "location": str(wanted),
        "job_id": job.job_id,
        "metrics": told["metrics"],
        "duration": told["duration"],
    }
    assert counts.count("training.submits") > before
    assert counts.count("training.log_lag") > 0


def announced(airflow: LocalAirflow) -> object:
    """What the Dag that waits for the model learned of it."""

    def runs() -> list[str]:
        return [run["dag_run_id"] for run in airflow.api("GET", "/dags/consumer/dagRuns")["dag_runs"]]

    wait_for(lambda: bool(runs()), "A run of the Dag that waits for the model")
    (run,) = runs()
    assert airflow.wait_for_run("consumer", run) == "success"
    return airflow.xcom("consumer", run, "deploy")
