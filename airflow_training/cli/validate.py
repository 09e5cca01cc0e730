"""`airflow-training validate`: what the trainings of a Dag file would send, without a service."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airflow_training.cli.output import FAILED, JsonOption, print_errors, printable, printable_lines
from airflow_training.exceptions import InvalidParameters, TrainingError

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG

    from airflow_training.operators.training import TrainingOperator


def validate(
    file: Annotated[
        Path, typer.Argument(help="The file of a Dag, or a folder of them.", exists=True, show_default=False)
    ],
    task: Annotated[str | None, typer.Option(help="Only the tasks with this id.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the trainings of a Dag, and show the command and the files that each would send."""
    with print_errors():
        found = [
            _checked(dag_id, training) for dag_id, training in _trainings(file) if task in (None, training.task_id)
        ]
        if not found:
            raise TrainingError(
                f"There is no training{f' with the task id {task}' if task else ''} in {file}.", code="AT-903"
            )
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo("\n\n".join(map(_lines, found)))
    if any("error" in each for each in found):
        raise typer.Exit(FAILED)


def _trainings(file: Path) -> Iterator[tuple[str, Any]]:
    """The training tasks of a Dag file, mapped ones too; raises TrainingError if Airflow cannot read it."""
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_training.operators.training import TrainingOperator

    bag = _read(file.resolve())
    for name, stack in bag.import_errors.items():
        # The last line of a stack is the error.
        error = stack.strip().splitlines()[-1].removeprefix(f"{InvalidParameters.__module__}.InvalidParameters: ")
        raise TrainingError(f"Airflow cannot read {name}: {error}", code="AT-904")
    for dag_id, dag in sorted(bag.dags.items()):
        for task in dag.tasks:
            operator = task.operator_class if isinstance(task, MappedOperator) else type(task)
            if isinstance(operator, type) and issubclass(operator, TrainingOperator):
                yield dag_id, task


def _read(file: Path) -> DagBag:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.utils.cli import suppress_logs_and_warning

    bags = []
    # As with Airflow, Dags can import modules in their folder.
    sys.path.insert(0, str(file.parent if file.is_file() else file))
    try:
        # What a Dag prints is no output of this command. Airflow logs the errors that are printed later, with stacks.
        with redirect_stdout(sys.stderr):
            suppress_logs_and_warning(lambda _: bags.append(DagBag(file, safe_mode=False)))(Namespace(verbose=False))
    finally:
        del sys.path[0]
    return bags[0]


def _checked(dag_id: str, task: Any) -> dict[str, Any]:
    from airflow.sdk.log import redact

    checked: dict[str, Any] = {"dag_id": dag_id, "task_id": task.task_id}
    try:
        sent = _rendered(task).validate()
    except TrainingError as error:
        return {**checked, "error": str(error)}
    return {**checked, "command": redact(sent.command), "files": dict(sent.files), "unknown": list(sent.unknown)}


def _rendered(task: Any) -> TrainingOperator:
    """A copy of a task with the templates rendered that a run of now would render without its database."""
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    if isinstance(task, MappedOperator):
        task = _unmapped(task)
    copy: TrainingOperator = task.prepare_for_execution()
    dag: Any = copy.get_dag()
    context, environment = _context(dag, copy), copy.get_template_env()

    def render(value: Any) -> Any:
        try:
            return copy.render_template(value, context, environment)
        except Exception:  # noqa: BLE001 - a template may call anything; it is known at run time only
            if isinstance(value, Mapping):
                return {name: render(entry) for name, entry in value.items()}
            return [render(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    for name in copy.template_fields:
        setattr(copy, name, render(getattr(copy, name)))
    return copy


def _unmapped(task: Any) -> TrainingOperator:
    """One of the tasks of a mapped one, whose mapped values are unknown."""
    from airflow.sdk.bases.decorator import DecoratedMappedOperator

    from airflow_training.operators.dry_run import UNKNOWN

    if isinstance(task, DecoratedMappedOperator):
        expanded = task.op_kwargs_expand_input.value
        names = expanded if isinstance(expanded, Mapping) else task.python_callable.__annotations__
        unknown = {"op_kwargs": dict.fromkeys(names, UNKNOWN)}
    else:
        expanded = task.expand_input.value
        required = {"job_name", "script", "image", "completion_time"} - task.partial_kwargs.keys()
        unknown = dict.fromkeys(expanded if isinstance(expanded, Mapping) else required, UNKNOWN)
    unmapped: TrainingOperator = task.unmap(unknown)
    return unmapped


def _context(dag: DAG, task: TrainingOperator) -> Any:
    from datetime import datetime, timezone

    from airflow.sdk.execution_time import macros

    now = datetime.now(timezone.utc)
    day, second = now.strftime("%Y-%m-%d"), now.isoformat()
    return {
        "dag": dag,
        "task": task,
        "params": task.params.dump(),
        "macros": macros,
        "logical_date": now,
        "data_interval_start": now,
        "data_interval_end": now,
        "ds": day,
        "ds_nodash": day.replace("-", ""),
        "ts": second,
        "ts_nodash": now.strftime("%Y%m%dT%H%M%S"),
    }


def _lines(checked: Mapping[str, Any]) -> str:
    lines = [printable(f"{checked['dag_id']}.{checked['task_id']}")]
    if "error" in checked:
        return "\n".join([*lines, f"  {printable_lines(checked['error'])}"])
    lines.append(f"  {printable_lines(checked['command'])}")
    for name, size in checked["files"].items():
        lines.append(f"  {'?' if size is None else f'{size:,}':>15}  {printable(name)}")
    if checked["unknown"]:
        lines.append(f"  known only when the task runs: {printable(', '.join(checked['unknown']))}")
    return "\n".join(lines)
