"""Trainings that fail, each with a different error."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_training.operators.training import TrainingOperator

common: dict[str, Any] = {
    "script": "# A script.\nprint('no model here')\n",
    "image": "python:3",
    "completion_time": "10m",
}

with DAG("mistakes", schedule=None, max_active_tasks=8):
    # Values that are wrong in the file would be errors of the file.
    wrong: dict[str, dict[str, Any]] = {
        "wrong-secret": {"training_conn_id": "training_wrong_secret"},
        "no-service": {"training_conn_id": "training_no_service"},
        "no-connection": {"training_conn_id": "training_not_there"},
        "unknown-script": {"script": "{{ 'no_such_script.py' }}"},
        "many-mistakes": {
            "resources": {"cpus": "{{ 'many' }}"},
            "python_major_version": "{{ 4 }}",
            "data": {"a.csv": "no_such.csv"},
        },
        "exits-3": {"script": "import sys\nprint('the last line')\nsys.exit(3)\n"},
        "no-model": {},
        "wrong-model": {
            "script": "from pathlib import Path\nPath('model/1').mkdir(parents=True)\n"
            "Path('model/1/saved_model.pb').touch()\n",
            "model": "model.joblib",
        },
        "no-model-in-the-worker": {"deferrable": False},
    }
    for name, parameters in wrong.items():
        TrainingOperator(task_id=name, job_name=name, **{**common, **parameters})
