"""`airflow-training validate`: what the trainings of a Dag file would send, without a service."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airflow_training.cli.output import FAILED, JsonOption, print_errors, printable, printable_lines
from airflow_training.exceptions import InvalidParameters, TrainingError

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

    from airflow_training.operators.training import TrainingOperator


def validate(
    file: Annotated[
        Path, typer.Argument(help="A Dag file, or a folder of Dag files.", exists=True, show_default=False)
    ],
    task: Annotated[str | None, typer.Option(help="Check only tasks with this id.", show_default=False)] = None,
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


def _trainings(file: Path) -> Iterator[tuple[str, TrainingOperator]]:
    """The training tasks of a Dag file, one of each mapped one; raises TrainingError if Airflow cannot read it."""
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_training.operators.training import TrainingOperator

    bag = _read(file.resolve())
    for name, stack in bag.import_errors.items():
        # The last line of a stack is the error.
        error = stack.strip().splitlines()[-1].removeprefix(f"{InvalidParameters.__module__}.InvalidParameters: ")
        raise TrainingError(f"Airflow cannot read {name}: {error}", code="AT-904")
    for dag_id, dag in sorted(bag.dags.items()):
        for task in dag.tasks:
            if isinstance(task, TrainingOperator):
                yield dag_id, task
            elif isinstance(task, MappedOperator) and issubclass(task.operator_class, TrainingOperator):
                yield dag_id, _unmapped(task)


def _read(file: Path) -> DagBag:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.utils.cli import suppress_logs_and_warning

    bags: list[DagBag] = []
    # Dags can import modules in their folder. The scripts in it are not run: only a file that was named may be a Dag
    # without the words that Airflow looks for.
    folder, safe_mode = (file, True) if file.is_dir() else (file.parent, False)

    def read(_: Namespace) -> None:
        bags.append(BundleDagBag(file, bundle_path=folder, safe_mode=safe_mode))

    # What a Dag prints is no output of this command. Airflow logs the errors that are printed later, with stacks.
    with redirect_stdout(sys.stderr):
        suppress_logs_and_warning(read)(Namespace(verbose=False))
    return bags[0]


def _checked(dag_id: str, task: TrainingOperator) -> dict[str, Any]:
    from airflow.sdk._shared.secrets_masker import redact

    checked: dict[str, Any] = {"dag_id": dag_id, "task_id": task.task_id}
    try:
        sent = task.validate(_context(task))
    except TrainingError as error:
        return {**checked, "error": redact(str(error))}
    return {**checked, "command": redact(sent.command), "files": dict(sent.files), "unknown": list(sent.unknown)}


def _unmapped(task: Any) -> TrainingOperator:
    """One of the tasks of a mapped one, whose mapped values are unknown."""
    from airflow.sdk.bases.decorator import DecoratedMappedOperator

    from airflow_training.operators.dry_run import UNKNOWN

    of_function = isinstance(task, DecoratedMappedOperator)
    if of_function:
        expanded, given = task.op_kwargs_expand_input.value, task.partial_kwargs["op_kwargs"]
        required = {*signature(task.python_callable).parameters}
    else:
        expanded, given = task.expand_input.value, task.partial_kwargs
        required = {"job_name", "script", "image", "completion_time"}
    # `expand_kwargs` maps over values without names.
    names = expanded if isinstance(expanded, Mapping) else required - given.keys()
    unknown = dict.fromkeys(names, UNKNOWN)
    unmapped: TrainingOperator = task.unmap({"op_kwargs": unknown} if of_function else unknown)
    return unmapped


def _context(task: TrainingOperator) -> Any:
    """What a run of now would render with, as far as it needs no database."""
    from datetime import datetime, timezone

    from airflow.sdk.definitions.param import ParamsDict
    from airflow.sdk.execution_time import macros

    now = datetime.now(timezone.utc)
    return {
        "dag": task.get_dag(),
        "task": task,
        "params": task.params.dump() if isinstance(task.params, ParamsDict) else task.params,
        "macros": macros,
        "logical_date": now,
        "data_interval_start": now,
        "data_interval_end": now,
        "ds": f"{now:%Y-%m-%d}",
        "ds_nodash": f"{now:%Y%m%d}",
        "ts": now.isoformat(),
        "ts_nodash": f"{now:%Y%m%dT%H%M%S}",
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
