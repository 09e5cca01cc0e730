"""`@task.training`: a Python function whose body is the training script."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_training.jobs.parameters import variables
from airflow_training.operators.training import TrainingOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

_MAIN = """

if __name__ == "__main__":
    import argparse
    import json

    parser = argparse.ArgumentParser(allow_abbrev=False)
{arguments}
    {function}(**vars(parser.parse_known_args()[0]))
"""


class DecoratedTrainingOperator(DecoratedOperator, TrainingOperator):
    """Trains with a function as the script; made by `@task.training`.

    Args:
        python_callable: The function.
        op_args: What it is called with.
        op_kwargs: What it is called with, by name.
        kwargs: Everything that `TrainingOperator` takes, but for `script`; `job_name` is the function's name, if it is
            not given.
    """

    template_fields: ClassVar[tuple[str, ...]] = (  # type: ignore[misc]  # an instance's in Airflow's classes
        *DecoratedOperator.template_fields,
        *TrainingOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **TrainingOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.training"
    # Airflow shows the script and the arguments that were made of the function.
    overwrite_rtif_after_execution = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            script=f"The program is made of {python_callable.__name__}\nwhen the task runs",
            **{"job_name": python_callable.__name__, **kwargs},
        )

    def execute(self, context: Context) -> Any:
        """Make the script of the function, and train with it."""
        bound = inspect.signature(self.python_callable).bind(*self.op_args, **self.op_kwargs)
        bound.apply_defaults()
        self.script = script_of(self.python_callable, bound.arguments)
        given = variables(self.env or [])
        told = [{"name": name.upper(), "value": _text(value)} for name, value in bound.arguments.items()]
        self.env = [*told, *given] if isinstance(given, list) else given
        return super().execute(context)


def script_of(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Write a program that calls a function with what stands on its command line.

    The function's own text is all that it knows: what it needs it must import itself.

    Args:
        function: The function; its decorators are left out.
        arguments: What it is to be called with. Texts arrive as they are, all else as JSON.
    """
    source = inspect.getsource(function)
    # A function within another one stays as far right as it is, or its texts of several lines would change.
    shelter = "if True:\n" if source[:1].isspace() else ""
    (statement,) = ast.parse(shelter + source).body
    definition = statement.body[0] if isinstance(statement, ast.If) else statement
    lines = (shelter + source).splitlines()[definition.lineno - 1 :]
    parser = [
        f"    parser.add_argument('--{name.lower()}', dest={name!r}, type={_reader(value)})"
        for name, value in arguments.items()
    ]
    return (
        "from __future__ import annotations\n\n"
        + shelter
        + "\n".join(lines)
        + _MAIN.format(arguments="\n".join(parser), function=function.__name__)
    )


def training_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Train with a function as the script: `@task.training`.

    The function runs on the training service, in the job folder, where it must save its model. Its arguments arrive as
    `--name=value`, and as variables of the environment, `$NAME`.

    Args:
        python_callable: The function.
        kwargs: Everything that `TrainingOperator` takes, but for `script`.

    Example:
        >>> from airflow.sdk import task
        >>> @task.training(image="python:3", completion_time="1h", requirements="scikit-learn")  # doctest: +SKIP
        ... def train(rate: float, epochs: int = 5):
        ...     from sklearn.linear_model import SGDClassifier
        ...     ...
        >>> train.expand(rate=[0.1, 0.01])  # doctest: +SKIP
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=DecoratedTrainingOperator, **kwargs
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _reader(value: Any) -> str:
    return "str" if isinstance(value, str) else "json.loads"
