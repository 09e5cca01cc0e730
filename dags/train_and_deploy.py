"""Train a model on the 1994 census income data, and publish it for TensorFlow Serving if it is good enough.

train → validate → approve → deploy → smoke test. The approval is optional: choose it in the form of the run.
`deploy_census` is the second half, for models that other Dags train: it runs for each event of the asset
`census_model`, which `train_nightly` updates each night.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its license.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset, Param, TriggerRule, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowFailException

from airflow_training.operators.training import TrainingOperator

# The folder of the model's versions, which TensorFlow Serving watches.
MODEL = f"{os.environ.get('MODELS_FOLDER', '/opt/airflow/models')}/census"
KEEP = 3

TENSORFLOW: dict[str, Any] = {
    "requirements": "tensorflow-cpu==2.21.0",
    "image": "tensorflow/tensorflow:2.21.0",
    "completion_time": "30m",
}


@task_group
def deployment(location: Any) -> None:
    """Validate a model, request approval if chosen, publish the model, and test it."""

    @task
    def validation_data(location: str) -> dict[str, str]:
        """The data of the validation: the new model, and the deployed one, if any."""
        from airflow_training.serving import versions

        data = {"train.py": "census/train.py", "adult.test.gz": "census/adult.test.gz", "candidate": location}
        deployed = versions(MODEL)
        return data | ({"deployed": f"{MODEL}/{deployed[-1]}"} if deployed else {})

    validate = TrainingOperator(
        task_id="validate",
        job_name="validate-census",
        script="census/validate.py",
        data=validation_data(location),
        env={"LEAST_ACCURACY": "{{ params.get('least_accuracy', 0.8) }}"},
        model=None,
        **TENSORFLOW,
    )

    @task.branch
    def choose_approval() -> str:
        """Skip the approval unless the form of the run asks for it."""
        approval = get_current_context()["params"].get("approval", False)
        return "deployment.approve" if approval else "deployment.deploy"

    approve = ApprovalOperator(
        task_id="approve",
        subject="Deploy the new census model?",
        body="Measured on the test rows: {{ ti.xcom_pull('deployment.validate', key='training_job')['metrics'] }}",
        response_timeout=timedelta(days=1),
    )

    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    def deploy(location: str) -> int:
        """Publish the validated model as the next version."""
        from airflow_training.serving import publish

        return publish(location, MODEL, keep=KEEP)

    version = deploy(location)

    smoke_test = TrainingOperator(
        task_id="smoke_test",
        job_name="smoke-test-census",
        script="census/smoke_test.py",
        data={"train.py": "census/train.py", "deployed": f"{MODEL}/{{{{ ti.xcom_pull('deployment.deploy') }}}}"},
        model=None,
        **TENSORFLOW,
    )

    @task(trigger_rule=TriggerRule.ALL_FAILED)
    def roll_back() -> None:
        """Withdraw a version that failed its smoke test, and fail, so that it is noticed."""
        from airflow_training.serving import withdraw

        version = get_current_context()["ti"].xcom_pull("deployment.deploy")
        if version is None:
            raise AirflowFailException("Nothing was deployed, so there is nothing to roll back.")
        served = withdraw(MODEL, version)
        raise AirflowFailException(f"Version {version} failed its smoke test; version {served or version} is served.")

    approval = choose_approval()
    validate >> approval >> approve >> version
    approval >> version >> smoke_test >> roll_back()


with DAG(
    dag_id="train_and_deploy",
    schedule=None,
    # Each run compares its model with the one that the previous run deployed.
    max_active_runs=1,
    params={
        "approval": Param(False, type="boolean", description="Request approval before the model is deployed."),
        "least_accuracy": Param(0.8, type="number", minimum=0, maximum=1, description="Minimum for deployment."),
    },
    tags=["training"],
    doc_md=__doc__,
):
    train = TrainingOperator(
        task_id="train",
        job_name="train-and-deploy",
        script="census/train.py",
        data={"adult.data.gz": "census/adult.data.gz", "adult.test.gz": "census/adult.test.gz"},
        env={"TRAIN_DATA": "adult.data.gz", "TEST_DATA": "adult.test.gz", "EPOCHS": 8},
        resources={"cpus": 2, "gpus": 0, "memory": 4096},
        **TENSORFLOW,
    )
    deployment(train.output)

with DAG(
    dag_id="deploy_census",
    schedule=[Asset("census_model")],
    max_active_runs=1,
    tags=["training"],
    doc_md=__doc__,
):

    @task
    def newest_model() -> str:
        """The location of the model in the last event."""
        events = get_current_context()["triggering_asset_events"][Asset("census_model")]
        return str(events[-1].extra["location"])

    deployment(newest_model())
