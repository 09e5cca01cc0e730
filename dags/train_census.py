"""Train a wide & deep model on the 1994 census income data, and report its accuracy.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its license.
"""

from __future__ import annotations

import json

from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_training.operators.training import TrainingOperator

with DAG(
    dag_id="train_census",
    schedule=None,
    catchup=False,
    tags=["training"],
    doc_md=__doc__,
):
    train = TrainingOperator(
        task_id="train",
        job_name="train-census",
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
    def evaluate(location: str) -> float:
        """Read the accuracy that the script measured on the test set, from the file beside the model's folder."""
        version = ObjectStoragePath(location)
        metrics = json.loads((version.parent.parent / "metrics.json").read_text())
        return metrics["accuracy"]

    evaluate(train.output)
