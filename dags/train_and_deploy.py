"""Train a model on the 1994 census income data, and publish it for TensorFlow Serving.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its licence.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_training.operators.training import TrainingOperator

# The folder that TensorFlow Serving watches for the models' versions.
MODELS = Path("/opt/airflow/models")

with DAG(
    dag_id="train_and_deploy",
    schedule=None,
    catchup=False,
    # Each run publishes the version after the last one.
    max_active_runs=1,
    tags=["training"],
    doc_md=__doc__,
):
    train = TrainingOperator(
        task_id="train",
        job_name="train-and-deploy",
        script="census/train.py",
        data={
            "adult.data.gz": "census/adult.data.gz",
            "adult.test.gz": "census/adult.test.gz",
        },
        env={
            "TRAIN_DATA": "adult.data.gz",
            "TEST_DATA": "adult.test.gz",
            "EPOCHS": 8,
        },
        requirements="tensorflow-cpu==2.21.0",
        image="tensorflow/tensorflow:2.21.0",
        completion_time="30m",
        resources={"cpus": 2, "gpus": 0, "memory": 4096},
    )

    @task
    def deploy(location: str) -> str:
        """Publish the model as the next version; where it lies is handed on."""
        model = MODELS / "census"
        model.mkdir(parents=True, exist_ok=True)
        # Serving loads a version as soon as its folder is there: what is not whole yet has no number for a name.
        with tempfile.TemporaryDirectory(prefix="incoming-", dir=model) as incoming:
            copy = Path(incoming) / "model"
            ObjectStoragePath(location).copy(ObjectStoragePath(f"file://{copy}"), recursive=True)
            last = max((int(version.name) for version in model.iterdir() if version.name.isdecimal()), default=0)
            return str(copy.rename(model / str(last + 1)))

    deploy(train.output)
