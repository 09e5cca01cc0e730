"""`@task.training`: a Python function as the training script."""

from __future__ import annotations

import ast
import inspect
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
from airflow.sdk.exceptions import AirflowFailException

from airflow_training.api.parameters import variables
from airflow_training.exceptions import InvalidParameters, coded
from airflow_training.operators.training import TrainingOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_training.operators.run import TaskRun

_MAIN = """

if __name__ == "__main__":
    import argparse
    import json

    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
{arguments}
    {function}(**vars(parser.parse_known_args()[0]))
"""

# Each argument becomes an environment variable of the job as well; these have a meaning already.
_RESERVED = frozenset({"HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PWD", "PYTHONPATH", "SHELL", "TMPDIR", "USER"})


class DecoratedTrainingOperator(DecoratedOperator, TrainingOperator):
    """Trains with a function as the script; created by `@task.training`.

    Args:
        python_callable: The function.
        op_args: Its positional arguments.
        op_kwargs: Its keyword arguments.
        kwargs: The arguments of `TrainingOperator` except `script`; `job_name` is by default the function's name.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *TrainingOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **TrainingOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.training"
    # Airflow then shows the script and the variables made from the function.
    overwrite_rtif_after_execution = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        _check(python_callable)
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            script=f"The program is made from {python_callable.__name__}\nwhen the task runs",
            **{"job_name": python_callable.__name__, **kwargs},
        )

    def _run_of(self, context: Context) -> TaskRun:
        try:
            self._make_script()
        except InvalidParameters as error:
            raise AirflowFailException(str(error)) from None
        return super()._run_of(context)

    def _make_script(self) -> None:
        bound = inspect.signature(self.python_callable).bind(*self.op_args, **self.op_kwargs)
        bound.apply_defaults()
        values = {name: _plain(value) for name, value in bound.arguments.items()}
        self.script = script_of(self.python_callable, values)
        # A number stays a number, which is never masked, whatever its name.
        arguments = [
            {"name": name.upper(), "value": value if isinstance(value, int) else _text(value)}
            for name, value in values.items()
        ]
        with suppress(ValueError):  # an invalid `env` is reported with all other errors
            given = variables(self.env or [])
            self.env = [*arguments, *given] if isinstance(given, list) else given


def script_of(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Write a program that calls a function with the arguments of its command line.

    The program contains the function alone, so the function must import what it needs.

    Args:
        function: The function. Its decorators, types and defaults belong to the Dag file and are left out.
        arguments: Its arguments. Strings are passed unchanged, other values as JSON.
    """
    source = inspect.getsource(function)
    # A nested function keeps its indentation, or its multi-line strings would change.
    (statement,) = ast.parse(("if True:\n" if source[:1].isspace() else "") + source).body
    definition = statement.body[0] if isinstance(statement, ast.If) else statement
    if not isinstance(definition, ast.FunctionDef):
        raise TypeError(coded(f"{function.__name__} is not a function that can become a script", code="AT-011"))
    definition.decorator_list, definition.returns = [], None
    signature = definition.args
    signature.defaults, signature.kw_defaults = [], [None] * len(signature.kwonlyargs)
    for argument in (*signature.args, *signature.kwonlyargs):
        argument.annotation = None
    parser = [
        f"    parser.add_argument('--{name.lower()}', dest={name!r}, type={_reader(value)}, default={_text(value)!r})"
        for name, value in arguments.items()
    ]
    program = f"from __future__ import annotations\n\n{ast.unparse(definition)}"
    return program + _MAIN.format(arguments="\n".join(parser), function=function.__name__)


def training_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Train with a function as the script: `@task.training`.

    The function runs on the training service, in the job folder, where it must save its model. Its arguments are JSON
    values; the job gets them as `--name=value` and as environment variables, `$NAME`.

    Args:
        python_callable: The function.
        kwargs: The arguments of `TrainingOperator` except `script`.

    Example:
        >>> from airflow.sdk import task
        >>> @task.training(image="python:3", completion_time="1h", requirements="scikit-learn")  # doctest: +SKIP
        ... def train(rate: float, epochs: int = 5):
        ...     from sklearn.linear_model import SGDClassifier
        ...     ...
        >>> train.expand(rate=[0.1, 0.01])  # doctest: +SKIP
    """
    return task_decorator_factory(
        # The task returns the location of the model, whatever the function is annotated to return.
        multiple_outputs=False,
        python_callable=python_callable,
        decorated_operator_class=DecoratedTrainingOperator,
        **kwargs,
    )


def _check(function: Callable[..., Any]) -> None:
    """Raise TypeError, when the Dag is read, for a function that cannot become a script."""
    name, parameters = function.__name__, inspect.signature(function).parameters
    if not name.isidentifier() or inspect.iscoroutinefunction(function):
        raise TypeError(coded(f"@task.training needs a plain function, which {name} is not", code="AT-012"))
    for argument, parameter in parameters.items():
        variable = argument.upper()
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                coded(
                    f"{name} runs on the training service, so each of its arguments needs a name: {parameter}",
                    code="AT-013",
                )
            )
        if argument in KNOWN_CONTEXT_KEYS:
            raise TypeError(
                coded(
                    f"{name} runs on the training service, without Airflow's {argument!r}: pass what it needs as"
                    " an argument with another name, such as a template",
                    code="AT-014",
                )
            )
        if variable in _RESERVED:
            raise TypeError(
                coded(
                    f"the argument {argument!r} of {name} would be the variable {variable} of the job: give it another"
                    " name",
                    code="AT-015",
                )
            )


def _plain(value: Any) -> Any:
    """Convert a value to JSON types, as which it reaches the job."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (bytes, bytearray)):
        return [_plain(entry) for entry in value]
    raise InvalidParameters([f"an argument cannot be a {type(value).__name__}: it must be a JSON value"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _reader(value: Any) -> str:
    return "str" if isinstance(value, str) else "json.loads"
