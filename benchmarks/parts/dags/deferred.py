"""A Dag with the trainings of `benchmarks/density.py`. It is paused, and they are deferred behind its back."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_training.operators.training import TrainingOperator

with DAG("deferred", schedule=None, is_paused_upon_creation=True):
    TrainingOperator.partial(
        task_id="train", script="train.py", image="python:3", completion_time="20h", cancel_on_kill=False
    ).expand(job_name=[f"train-{index}" for index in range(int(os.environ["BENCHMARK_TASKS"]))])
