"""Train the census model each night on the newest data, and update the asset `census_model`.

`deploy_census` deploys it. A missed night is not made up for: the next one has newer data.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its license.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.sdk import DAG, Asset, task

from airflow_training.operators.training import TrainingOperator

# The source of new data: a folder, or a URI for ObjectStoragePath. The last file by name is the newest.
DATA = os.environ.get("CENSUS_DATA") or str(Path(__file__).with_name("census"))

with DAG(
    dag_id="train_nightly",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    # If a training takes longer than a day, the next one waits for it.
    max_active_runs=1,
    tags=["training"],
    doc_md=__doc__,
):

    @task
    def newest_data() -> str:
        """Find the newest file of training rows."""
        from airflow.sdk import ObjectStoragePath

        files = sorted(str(file) for file in ObjectStoragePath(DATA).iterdir() if "adult.data" in file.name)
        if not files:
            raise FileNotFoundError(f"There is no file adult.data… in {DATA}.")
        return files[-1]

    TrainingOperator(
        task_id="train",
        job_name="train-nightly",
        script="census/train.py",
        data={"adult.data.gz": newest_data(), "adult.test.gz": "census/adult.test.gz"},
        env={"TRAIN_DATA": "adult.data.gz", "TEST_DATA": "adult.test.gz", "EPOCHS": 8},
        requirements="tensorflow-cpu==2.21.0",
        image="tensorflow/tensorflow:2.21.0",
        completion_time="2h",
        resources={"cpus": 2, "gpus": 0, "memory": 4096},
        retries=2,
        retry_delay=timedelta(minutes=10),
        outlets=[Asset("census_model")],
    )
