"""Validate each new model of `train_sklearn`, then predict the incomes of many people with it.

Both are jobs without a model, so each hands on its folder. An event of the asset `income_model` starts a run.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its license.
"""

from __future__ import annotations

import csv
from typing import Any

from airflow.sdk import DAG, Asset, ObjectStoragePath, get_current_context, task

from airflow_training.operators.training import TrainingOperator

JOB: dict[str, Any] = {
    "source_dir": "income",
    "model": None,
    # A model of scikit-learn is read with the version that wrote it.
    "requirements": ["scikit-learn==1.7.2", "pandas==2.3.3"],
    "image": "python:3.12",
    "completion_time": "30m",
}

with DAG(dag_id="predict_census", schedule=[Asset("income_model")], tags=["training"], doc_md=__doc__):

    @task
    def newest_model() -> str:
        """The location of the model in the last event."""
        events = get_current_context()["triggering_asset_events"][Asset("income_model")]
        return str(events[-1].extra["location"])

    model = newest_model()
    validate = TrainingOperator(
        task_id="validate",
        job_name="validate-income",
        script="validate.py",
        data={"model.joblib": model, "adult.test.gz": "census/adult.test.gz"},
        args={"least-accuracy": 0.85},
        **JOB,
    )
    predict = TrainingOperator(
        task_id="predict",
        job_name="predict-income",
        script="predict.py",
        data={"model.joblib": model, "people.gz": "census/adult.test.gz"},
        **JOB,
    )

    @task
    def count(location: str) -> int:
        """Count the people who probably earn more than 50,000 dollars."""
        with (ObjectStoragePath(location) / "predictions.csv").open() as file:
            return sum(float(row["probability"]) > 0.5 for row in csv.DictReader(file))

    validate >> predict
    count(predict.output)
