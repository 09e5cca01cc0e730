"""Trainings for tests that disturb them. Job and connection come from the run's configuration."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_training.operators.training import TrainingOperator

RETRY: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(seconds=1)}
KINDS: dict[str, dict[str, Any]] = {
    "once": {},
    "retry": RETRY,
    "timeout": {**RETRY, "execution_timeout": timedelta(seconds=20)},
    "pending": {"pending_timeout": 5},
    "not_durable": {**RETRY, "durable": False},
    "not_canceled": {"cancel_on_kill": False},
    "secret": {
        "env": {
            "TRACKER": "{{ conn.tracker.password }}",
            "STORE": "https://user:{{ conn.tracker.password }}@host",
            "API_KEY": "pl4in-text",
            "PIN_TOKEN": "qz7",
            "EPOCHS": 5,
        }
    },
}


def train(deferrable: bool, **arguments: Any) -> None:
    """Add the training to the Dag."""
    TrainingOperator(
        task_id="train",
        job_name="overridden",
        script="overridden.py",
        image="python:3",
        completion_time="2h",
        training_conn_id="{{ dag_run.conf['connection'] }}",
        config="{{ dag_run.conf['job'] }}",
        deferrable=deferrable,
        **arguments,
    )


for kind, arguments in KINDS.items():
    for deferrable in (True, False):
        with DAG(f"{kind}_{'deferred' if deferrable else 'in_worker'}", schedule=None, max_active_tasks=100):
            train(deferrable, **arguments)

# Trainings whose Dag, or task, is removed during the run.
for name, seconds in {"deleted": None, "removed": None, "run_timeout": 60}.items():
    with DAG(f"{name}_deferred", schedule=None, dagrun_timeout=timedelta(seconds=seconds) if seconds else None):
        # A test creates the file to remove the task.
        if name == "removed" and Path(os.environ["AIRFLOW_HOME"], "removed").exists():
            EmptyOperator(task_id="another")
            continue
        train(deferrable=True)

SAVE = "from pathlib import Path\nPath('model/1').mkdir(parents=True)\nPath('model/1/saved_model.pb').write_text('m')\n"

with DAG("hundred", schedule=None, max_active_tasks=200):
    TrainingOperator.partial(task_id="train", script=SAVE, image="python:3", completion_time="1h", **RETRY).expand(
        job_name=[f"of-a-hundred-{number}" for number in range(100)]
    )
