"""Trainings that succeed."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_training.operators.training import TrainingOperator

SAVE = "from pathlib import Path\nPath('model/1').mkdir(parents=True)\nPath('model/1/saved_model.pb').write_text('m')\n"

# To Jinja these braces are an unterminated expression.
TELL = """loss = 0.5
print(f'{{"metrics": {{"loss": {loss}}}}}')
"""

common: dict[str, Any] = {"image": "python:3", "completion_time": "2h"}

with DAG("waiting", schedule=None):
    train = TrainingOperator(
        task_id="train",
        job_name="waiting",
        script="scripts/wait_then_save.py",
        data={"data.csv": b"1,2,3"},
        env=[{"name": "TRAIN_DATA", "value": "data.csv"}],
        **common,
    )

    @task
    def read_model(location: str) -> str:
        """The next task, which uses the location."""
        return (ObjectStoragePath(location) / "saved_model.pb").read_text()

    read_model(location=train.output)  # type: ignore[arg-type]  # Airflow's decorator does not type XComs

with DAG("in_the_worker", schedule=None):
    TrainingOperator(task_id="train", job_name="in-the-worker", script=TELL + SAVE, deferrable=False, **common)

with DAG("by_hand", schedule=None):
    TrainingOperator(task_id="train", job_name="by-plan", script=SAVE, config="{{ dag_run.conf }}", **common)

with DAG("mapped", schedule=None):
    TrainingOperator.partial(task_id="train", script=TELL + SAVE, **common).expand(job_name=["first", "second"])
