"""Train many census models in parallel, one for each seed, and find the best.

The service runs as many at a time as it has resources for; the others are queued there, without a worker slot.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its license.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.sdk import DAG, Param, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_training.operators.training import TrainingOperator

with DAG(
    dag_id="train_many",
    schedule=None,
    params={"models": Param(50, type="integer", minimum=1, maximum=1000, description="How many models to train.")},
    # Limits how many upload or return their result at a time; deferred tasks do not count.
    max_active_tasks=200,
    tags=["training"],
    doc_md=__doc__,
):

    @task
    def variants() -> list[dict[str, Any]]:
        """The variables of each training."""
        return [{"SEED": seed, "EPOCHS": 4} for seed in range(1, get_current_context()["params"]["models"] + 1)]

    train = TrainingOperator.partial(
        task_id="train",
        job_name="train-many",
        script="census/train.py",
        data={"adult.data.gz": "census/adult.data.gz", "adult.test.gz": "census/adult.test.gz"},
        requirements="tensorflow-cpu==2.21.0",
        image="tensorflow/tensorflow:2.21.0",
        completion_time="30m",
        resources={"cpus": 1, "memory": 2048},
        map_index_template="seed {{ task.env['SEED'] }}",
    ).expand(env=variants())

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def best(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """The result of the most accurate model, with the variables that it was trained with."""
        # A training that failed has no result.
        succeeded = list(results)
        if not succeeded:
            raise AirflowFailException("No training has succeeded: the log of each says why.")
        return max(succeeded, key=lambda result: result["metrics"]["accuracy"])

    best(train.output["training_job"])
