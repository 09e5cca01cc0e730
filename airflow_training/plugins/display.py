"""How the pages show values: statuses, tasks, labels of runs, and the table of parameters."""

from __future__ import annotations

import json
import re
from ast import literal_eval
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.sdk._shared.secrets_masker import redact

from airflow_training.api.parameters import overridden
from airflow_training.api.status import JobStatus
from airflow_training.exceptions import InvalidParameters
from airflow_training.urls import base_path, task_path

if TYPE_CHECKING:
    from airflow_training.plugins.job_refs import TaskRef
    from airflow_training.plugins.task_instances import Training

# A page shows no more parameters, and no longer or deeper ones.
_MAX_PARAMETERS = 300
_MAX_LENGTH = 2000
_MAX_DEPTH = 10
# The arguments of a decorated function are in `env` as well.
_SHOWN_ELSEWHERE = ("op_args", "op_kwargs", "templates_dict")

# How Airflow names a run by its time: `manual__2026-11-26T09:30:12.123456+00:00_Xk2a`.
_TIMED = re.compile(r"[a-z_]+?__(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?")


def utf8_safe(text: str) -> str:
    """Replace lone surrogates, which JSON can hold and UTF-8 cannot.

    >>> utf8_safe("loss \\ud83d")
    'loss ?'
    """
    return text.encode(errors="replace").decode()


def show_status(status: JobStatus) -> dict[str, Any]:
    """The status of a job, as the pages expect it."""
    wire: Mapping[str, Any] = status.to_wire()
    return {
        "job_id": status.job_id,
        "name": status.name,
        "status": status.state.value,
        "message": status.message,
        "submitted": wire["submissionTime"],
        "started": wire["startTime"],
        "finished": wire["finishTime"],
        "duration": status.duration.total_seconds() if status.duration else None,
    }


def show_task(training: Training) -> dict[str, Any]:
    """A task instance, as the pages expect it."""
    ref = training.ref
    path = base_path() + task_path(ref.dag_id, ref.run_id, ref.task_id, ref.map_index)
    return {
        **ref.to_dict(),
        "state": training.state,
        "try_number": training.try_number,
        "url": path,
        "log_url": f"{path}?try_number={training.try_number}" if training.try_number else path,
    }


def run_labels(refs: Sequence[TaskRef]) -> dict[TaskRef, str]:
    """Label trainings in a chart, by the shortest form in which all labels differ.

    >>> from airflow_training.plugins.job_refs import TaskRef
    >>> first, second = (TaskRef("d", f"manual__2026-11-26T09:3{n}:00+00:00", "train") for n in range(2))
    >>> list(run_labels([first, second]).values())
    ['2026-11-26 09:30', '2026-11-26 09:31']
    """
    forms: list[Callable[[TaskRef], str]] = [
        lambda ref: _time(ref.run_id, seconds=False),
        lambda ref: _time(ref.run_id, seconds=True),
        lambda ref: ref.run_id,
        lambda ref: f"{ref.dag_id}, {ref.run_id}",
    ]
    tasks = len({ref.task_id for ref in refs}) > 1
    labels: dict[TaskRef, str] = {}
    for form in forms:
        labels = {ref: form(ref) + _within_run(ref, tasks=tasks) for ref in refs}
        if max(Counter(labels.values()).values(), default=1) == 1:
            break
    return labels


def _time(run_id: str, *, seconds: bool) -> str:
    timed = _TIMED.match(run_id)
    return f"{timed[1]} {timed[2]}" + ((timed[3] or "") if seconds else "") if timed else run_id


def _within_run(ref: TaskRef, *, tasks: bool) -> str:
    return (f" {ref.task_id}" if tasks else "") + (f" [{ref.map_index}]" if ref.map_index >= 0 else "")


def parameter_table(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Flatten the rendered fields of a task into names and values, with the overrides of the task's config applied.

    Args:
        fields: As Airflow stores them, masked. Values parsed from text are masked again by their names.

    >>> parameter_table({"image": "python:3", "env": '{"EPOCHS": 8}', "data": None, "config": {"image": "python:3.13"}})
    [('image', 'python:3.13'), ('env.EPOCHS', '8')]
    """
    shown = {name: value for name, value in fields.items() if name not in _SHOWN_ELSEWHERE}
    # The operator's attribute has another name than its argument.
    shown = {_argument(name): value for name, value in shown.items()}
    # A config that cannot be parsed, since Airflow has truncated it for instance, is shown as it is.
    with suppress(InvalidParameters):
        shown = overridden({name: value for name, value in shown.items() if name != "config"}, shown.get("config"))
    # A config may use either name.
    shown = {_argument(name): value for name, value in shown.items()}
    return list(islice(_entries("", shown), _MAX_PARAMETERS))


def _argument(attribute: str) -> str:
    return "resources" if attribute == "job_resources" else attribute


def _parsed(value: Any) -> Any:
    """An object given as JSON or as a Python literal: templates render to either."""
    parsed = value
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        for parse in (json.loads, literal_eval):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                parsed = parse(value.strip())
                break
    return {entry["name"]: entry.get("value") for entry in parsed} if _are_variables(parsed) else parsed


def _are_variables(value: Any) -> bool:
    entries = value if isinstance(value, list) else []
    return bool(entries) and all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in entries)


def _entries(prefix: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, list) and any(isinstance(_parsed(entry), (dict, list)) for entry in value):
        value = dict(enumerate(value))
    if depth > _MAX_DEPTH:
        yield prefix, "…"
    elif isinstance(value, dict):
        for name, inner in value.items():
            # At each level: Airflow does not mask deep ones.
            shown = redact(_parsed(inner), str(name))
            yield from _entries(utf8_safe(f"{prefix}.{name}" if prefix else str(name)), shown, depth + 1)
    elif value not in (None, "", [], ()):
        yield prefix, _text(value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return utf8_safe(text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}…")
