"""The program that `@task.training` makes of a function; that it trains is tested in tests/airflow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.serialization.serialized_objects import DagSerialization

from airflow_training.decorators.training import script_of

Function = Callable[..., Any]


def noted(function: Function) -> Function:
    """A decorator of the user's own, which does not exist where the program runs."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


@noted
def on_top(rate: float, name: str = "a", sizes: tuple[int, ...] = ()) -> None:
    import json

    print(json.dumps({"rate": rate, "name": name, "sizes": sizes}))


def run(script: str, *arguments: str) -> Any:
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


def test_texts_arrive_as_they_are_and_all_else_with_its_type() -> None:
    script = script_of(on_top, {"rate": 0.5, "name": "5", "sizes": [1, 2]})

    said = run(script, "--rate=0.5", "--name=5", "--sizes=[1, 2]", "--other=of the environment")

    assert said == {"rate": 0.5, "name": "5", "sizes": [1, 2]}


def test_a_function_within_another_keeps_its_texts() -> None:
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


def test_what_the_function_lacks_is_told_when_the_dag_is_read() -> None:
    with DAG("decorated", schedule=None):
        train: Any = task.training(image="python:3", completion_time="1h")(on_top)

        with pytest.raises(TypeError, match="missing a required argument: 'rate'"):
            train()
