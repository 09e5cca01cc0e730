"""Train the census model, track the run in MLflow, and register the model there.

The Airflow variable `mlflow_tracking_uri` has the URL of MLflow's server.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its license.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_training.operators.training import TrainingOperator

with DAG(dag_id="train_mlflow", schedule=None, tags=["training"], doc_md=__doc__):
    TrainingOperator(
        task_id="train",
        job_name="train-mlflow",
        source_dir="income",
        script="train_mlflow.py",
        data={"adult.data.gz": "census/adult.data.gz", "adult.test.gz": "census/adult.test.gz"},
        args={"learning-rate": 0.1, "trees": 100},
        environment={"MLFLOW_TRACKING_URI": "{{ var.value.mlflow_tracking_uri }}"},
        model="model",
        requirements=["mlflow-skinny==3.17.2", "scikit-learn==1.7.2", "pandas==2.3.3"],
        image="python:3.12",
        completion_time="30m",
    )
