"""Train the census model with scikit-learn, and update the asset `income_model`, for which `predict_census` waits.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its license.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset

from airflow_training.operators.training import TrainingOperator

with DAG(dag_id="train_sklearn", schedule=None, tags=["training"], doc_md=__doc__):
    TrainingOperator(
        task_id="train",
        job_name="train-sklearn",
        source_dir="income",
        script="train_sklearn.py",
        data={"adult.data.gz": "census/adult.data.gz", "adult.test.gz": "census/adult.test.gz"},
        args={"learning-rate": 0.1, "trees": 100},
        model="model.joblib",
        requirements=["scikit-learn==1.7.2", "pandas==2.3.3"],
        image="python:3.12",
        completion_time="30m",
        outlets=[Asset("income_model")],
    )
