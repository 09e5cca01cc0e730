"""The program that `@task.training` makes from a function; tests/airflow has its training."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.serialization.serialized_objects import DagSerialization

from airflow_training.decorators.training import script_of
from airflow_training.exceptions import InvalidParameters

Function = Callable[..., Any]


def noted(function: Function) -> Function:
    """A decorator of the user, which does not exist in the program."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


RATE = 0.1


@noted
def on_top(rate: float = RATE, name: str = str(Path("a")), *, sizes: tuple[int, ...] = ()) -> dict[str, float]:
    import json

    def inner(value: Function) -> Function:
        return value

    print(json.dumps({"rate": rate, "name": inner(name), "sizes": sizes}))  # type: ignore[arg-type]
    return {}


def run(script: str, *arguments: str) -> Any:
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


def test_strings_arrive_unchanged_and_other_values_with_their_type() -> None:
    script = script_of(on_top, {"rate": 0.5, "name": "5", "sizes": [1, 2]})

    printed = run(script, "--rate=0.5", "--name=5", "--sizes=[1, 2]", "--other=of the environment")

    assert printed == {"rate": 0.5, "name": "5", "sizes": [1, 2]}


def test_a_nested_function_keeps_its_strings() -> None:
    def inner(Words: str) -> None:
        import json

        print(
            json.dumps(
                Words
                + """
at the left
"""
            )
        )

    assert run(script_of(inner, {"Words": "a b"}), "--words=a b") == "a b\nat the left\n"


def test_airflow_knows_the_decorator_and_can_map_it() -> None:
    with DAG("decorated", schedule=None) as dag:

        @task.training(image="python:3", completion_time="1h", requirements=["numpy"], resources={"cpus": 1})
        def train(rate: float, epochs: int = 5) -> None: ...

        train(0.1)
        train.partial(epochs=2).expand(rate=[0.1, 0.2])

    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))

    assert sorted(read.task_ids) == ["train", "train__1"]
    first: Any = dag.get_task("train")
    assert first.job_name == "train"


def test_arguments_that_are_not_on_the_command_line_have_their_original_values() -> None:
    script = script_of(on_top, {"rate": 0.5, "name": "it's", "sizes": None})

    assert run(script, "--rate=1e-3") == {"rate": 0.001, "name": "it's", "sizes": None}


def decorated(function: Function, *args: Any, **kwargs: Any) -> Any:
    """The task of a function, on a worker before the training."""
    with DAG("decorated", schedule=None) as dag:
        train: Any = task.training(image="python:3", completion_time="1h", **kwargs.pop("of_the_task", {}))(function)
        train(*args, **kwargs)
    operator: Any = dag.get_task(function.__name__)
    operator._make_script()
    return operator


def test_arguments_are_json_values() -> None:
    day = date(2026, 11, 25)

    operator = decorated(on_top, name=Path("data"), rate=(1, {"a": day}), sizes={3}, of_the_task={"env": {"A": 1}})

    assert operator.env == [
        {"name": "RATE", "value": '[1, {"a": "2026-11-25"}]'},
        {"name": "NAME", "value": "data"},
        {"name": "SIZES", "value": "[3]"},
        {"name": "A", "value": 1},
    ]
    with pytest.raises(InvalidParameters, match="an argument cannot be a bytes: it must be a JSON value"):
        decorated(on_top, b"binary")


def test_a_function_with_a_return_annotation_returns_the_location() -> None:
    assert decorated(on_top).multiple_outputs is False


def with_context(rate: float, ds: str | None = None) -> None: ...


def with_path(path: str) -> None: ...


def with_any(*numbers: int) -> None: ...


async def waiting(rate: float) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (with_context, "without Airflow's 'ds'"),
        (with_path, "the argument 'path' of with_path would be the variable PATH of the job"),
        (with_any, "each of its arguments needs a name: *numbers"),
        (waiting, "@task.training needs a plain function, which waiting is not"),
        (lambda rate: None, "@task.training needs a plain function, which <lambda> is not"),
    ],
)
def test_a_function_that_cannot_become_a_script_is_an_error_when_the_dag_is_read(
    function: Function, message: str
) -> None:
    with DAG("decorated", schedule=None), pytest.raises(TypeError, match=re.escape(message)):
        task.training(image="python:3", completion_time="1h")(function)("a")


def needs_a_rate(rate: float) -> None: ...


def test_a_missing_argument_is_an_error_when_the_dag_is_read() -> None:
    with DAG("decorated", schedule=None):
        train: Any = task.training(image="python:3", completion_time="1h")(needs_a_rate)

        with pytest.raises(TypeError, match="missing a required argument: 'rate'"):
            train()
