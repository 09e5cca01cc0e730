"""The operator, as a Dag's author and Airflow's scheduler see it; what it does is tested in tests/airflow."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_training.hooks.training import TrainingHook
from airflow_training.jobs.parameters import TrainingParameters
from airflow_training.operators.training import TrainingOperator

MINIMAL: dict[str, Any] = {"job_name": "a", "image": "i", "completion_time": "1h", "script": "train.py"}


def test_every_parameter_of_a_training_is_one_of_the_operator() -> None:
    taken = inspect.signature(TrainingOperator.__init__).parameters

    assert set(TrainingParameters.model_fields) <= set(taken)


def test_every_parameter_is_templated() -> None:
    attributes = {"resources": "job_resources"}
    wanted = {attributes.get(name, name) for name in TrainingParameters.model_fields}

    assert set(TrainingOperator.template_fields) == wanted | {"config", "training_conn_id", "model_destination"}


def test_no_template_field_is_an_argument_of_airflows_own() -> None:
    """Airflow refuses such a Dag, and reads `resources` as its own kind of resources."""
    own = set(inspect.signature(BaseOperator.__init__).parameters)

    assert own.isdisjoint(TrainingOperator.template_fields)


def test_a_dag_with_plain_and_mapped_trainings_reaches_the_scheduler() -> None:
    with DAG("trainings", schedule=None) as dag:
        TrainingOperator(task_id="one", resources={"cpus": 2, "memory": 4096}, env={"EPOCHS": 1}, **MINIMAL)
        TrainingOperator.partial(task_id="many", resources={"cpus": 2}, **MINIMAL).expand(env=[{"A": 1}, {"A": 2}])
        TrainingOperator.partial(task_id="sizes", **MINIMAL).expand(resources=[{"cpus": 1}, {"cpus": 2}])

    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))

    assert sorted(read.task_ids) == ["many", "one", "sizes"]


@pytest.mark.parametrize(("configured", "deferrable"), [(None, True), ("False", False), ("True", True)])
def test_a_training_is_deferred_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, configured: str | None, deferrable: bool
) -> None:
    if configured:
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", configured)

    assert TrainingOperator(task_id="train", **MINIMAL).deferrable is deferrable
    assert TrainingOperator(task_id="train", **MINIMAL, deferrable=not deferrable).deferrable is not deferrable


def test_the_connection_is_the_hooks_where_the_dag_names_none() -> None:
    assert TrainingOperator(task_id="train", **MINIMAL).training_conn_id == TrainingHook.default_conn_name
