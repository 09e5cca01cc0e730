"""The operator in a Dag file and in the scheduler; tests/airflow has its execution."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_training.api.parameters import TrainingParameters
from airflow_training.exceptions import InvalidParameters
from airflow_training.hooks.training import TrainingHook
from airflow_training.operators.training import TrainingOperator

MINIMAL: dict[str, Any] = {"job_name": "a", "image": "i", "completion_time": "1h", "script": "print(1)\n"}


def test_every_parameter_of_a_training_is_one_of_the_operator() -> None:
    taken = inspect.signature(TrainingOperator.__init__).parameters

    assert set(TrainingParameters.model_fields) <= set(taken)


def test_every_parameter_is_templated() -> None:
    attributes = {"resources": "job_resources"}
    wanted = {attributes.get(name, name) for name in TrainingParameters.model_fields}

    assert set(TrainingOperator.template_fields) == wanted | {"config", "training_conn_id", "model_destination"}


def test_no_template_field_is_an_argument_of_airflows_own() -> None:
    """Airflow refuses such a Dag, and takes `resources` for its own."""
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


def test_the_default_connection_is_the_hooks() -> None:
    assert TrainingOperator(task_id="train", **MINIMAL).training_conn_id == TrainingHook.default_conn_name


PROGRAM = """loss = 0.5
print(f'{{"metrics": {{"loss": {loss}}}}}')  # {% no tag %} {# no comment #}
"""


def rendered(operator: Any) -> Any:
    """A task on a worker."""
    context: Any = {"ds": "2026-11-29", "ti": Mock(), "task": operator}
    operator.render_template_fields(context)
    return context["task"]


def test_the_text_of_a_program_is_not_rendered() -> None:
    with DAG("programs", schedule=None):
        task = TrainingOperator(task_id="train", **{**MINIMAL, "script": PROGRAM, "env": {"DAY": "{{ ds }}"}})

    found = rendered(task)

    assert found.script == PROGRAM
    assert found.env == {"DAY": "2026-11-29"}


def test_a_path_to_a_script_is_a_template() -> None:
    with DAG("paths", schedule=None):
        task = TrainingOperator(task_id="train", **{**MINIMAL, "script": "s3://scripts/{{ ds }}/train.py"})

    assert rendered(task).script == "s3://scripts/2026-11-29/train.py"


def test_the_program_in_a_config_is_not_rendered() -> None:
    with DAG("configs", schedule=None):
        task = TrainingOperator(task_id="train", config={"script": PROGRAM, "jobName": "on-{{ ds }}"}, **MINIMAL)

    assert rendered(task).config == {"script": PROGRAM, "jobName": "on-2026-11-29"}


def test_the_programs_of_mapped_tasks_are_not_rendered() -> None:
    with DAG("mapped", schedule=None):
        mapped = TrainingOperator.partial(task_id="train", **{**MINIMAL, "script": PROGRAM}).expand(
            env=[{"A": "{{ ds }}"}]
        )

    task: Any = mapped.unmap({"env": {"A": "{{ ds }}"}})  # what Airflow does for each of them

    assert rendered(task).script == PROGRAM
    assert task.env == {"A": "2026-11-29"}


def test_airflow_shows_the_program_unchanged() -> None:
    with DAG("shown", schedule=None) as dag:
        TrainingOperator(task_id="train", **{**MINIMAL, "script": PROGRAM})

    read: Any = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("train")

    assert read.script == PROGRAM


@pytest.mark.parametrize("limit", [None, timedelta(hours=1)])
def test_a_time_that_only_the_service_can_read_needs_an_execution_timeout(limit: timedelta | None) -> None:
    values = {**MINIMAL, "script": PROGRAM, "completion_time": "10 parsecs"}

    def sent() -> Any:
        return TrainingOperator(task_id="train", execution_timeout=limit, **values).validate().description

    if limit:
        assert sent().execution.completion_time == "10 parsecs"
    else:
        with pytest.raises(InvalidParameters, match=r"completion_time is not a time such as .* an execution_timeout"):
            sent()
