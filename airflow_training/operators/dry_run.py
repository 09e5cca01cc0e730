"""A dry run of a training task: all that a run does before it connects to the service.

What is known only at run time, such as the result of another task, is shown as its template or left out, and listed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, ObjectStoragePath

from airflow_training.api.description import JobDescription, command_line
from airflow_training.api.parameters import TrainingParameters, is_literal, script_is_path, script_is_text
from airflow_training.api.requirements import REQUIREMENTS_FILE
from airflow_training.client.storage import Upload
from airflow_training.exceptions import InvalidParameters
from airflow_training.operators import files
from airflow_training.operators.masked_secrets import masks
from airflow_training.operators.run import TaskRun

if TYPE_CHECKING:
    from airflow_training.operators.training import TrainingOperator

UNKNOWN = "{{ … }}"
"""A value that is known only at run time and has no template to show."""

# Valid values for required parameters that are known only at run time. A module is no file to look for.
_STAND_INS = {"job_name": "unknown", "image": "unknown", "completion_time": 1, "script": "-m unknown"}


@dataclass(frozen=True)
class DryRun:
    """What a training would send.

    Attributes:
        command: The command of the job. A value that is known only at run time is shown as its template.
        files: The files of the job folder: name → bytes; None for a file that is known only at run time.
        unknown: The parameters that are known only at run time, at least in part.
        description: The description of the job; None if a required parameter is known only at run time. Optional ones
            are in it as their templates or left out. The variables that name the task are not in it.
    """

    # Command and description may contain secrets, and pytest shows the repr of what it compares.
    command: str = field(repr=False)
    files: Mapping[str, int | None]
    unknown: Sequence[str]
    description: JobDescription | None = field(repr=False)


def dry_run(task: TrainingOperator) -> DryRun:
    """Check a task, and find what it would send.

    Args:
        task: A copy of the task after `render`, which is changed.

    Raises:
        InvalidParameters: Lists all errors.
    """
    config_known = isinstance(task.config, Mapping) or is_literal(task.config)
    task.config = task.config if config_known else None
    given = files.given(task)
    limited = task.execution_timeout is not None
    shown, unknown, unknown_files = _with_stand_ins(given)
    sent = dict(shown)
    if "source_dir" in unknown:
        sent["source_dir"] = None
    if "script" in unknown or ("source_dir" in unknown and script_is_path(str(given["script"]))):
        sent["script"] = _STAND_INS["script"]
    for name, attribute in task.PARAMETERS.items():
        setattr(task, attribute, sent[name])
    # It is in the parameters.
    task.config = None
    if not is_literal(task.model_destination):
        task.model_destination = None

    errors = TrainingParameters.certain_errors(given, limited=limited)
    no_context: Any = {"ti": None}
    try:
        parameters, uploads = TaskRun(task, no_context).describe()
    except InvalidParameters as error:
        raise InvalidParameters(list(dict.fromkeys([*errors, *error.errors]))) from None
    if errors:
        raise InvalidParameters(errors)
    parameters = parameters.model_copy(update={name: shown[name] for name in ("script", "source_dir")})
    known = config_known and not set(unknown) & _STAND_INS.keys()
    return DryRun(
        command=command_line(parameters),
        files={upload.name: None if upload.name in unknown_files else _size(upload) for upload in uploads},
        unknown=unknown if config_known else ["config", *unknown],
        description=JobDescription.of(parameters, masks(parameters)) if known else None,
    )


def _with_stand_ins(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str], set[str]]:
    """Replace parameters that are known only at run time if they cannot be read before.

    Returns:
        The parameters; the names of those that are unknown, at least in part; the files with unknown content.
    """
    values = dict(given)
    unknown: list[str] = []
    unknown_files: set[str] = set()
    for name, value in given.items():
        # The braces of a program are not Jinja's.
        if _known(value) or (name == "script" and script_is_text(str(value))):
            continue
        if name == "data" and isinstance(value, Mapping):
            unknown_files |= {file for file, source in value.items() if not _known(source)}
            unknown += [f"data {file!r}" for file in sorted(unknown_files)]
            # The requirements may name one of them.
            values[name] = {file: b"" if file in unknown_files else source for file, source in value.items()}
            continue
        unknown.append(name)
        if name == "requirements" or not _is_valid(name, value):
            values[name] = _STAND_INS.get(name)
    # They may name a file that is known only at run time.
    if not {"data", "source_dir"}.isdisjoint(unknown) and not _is_valid("requirements", values["requirements"]):
        unknown.append("requirements")
    if "requirements" in unknown:
        values["requirements"] = "unknown"
        unknown_files.add(REQUIREMENTS_FILE)
    return values, unknown, unknown_files


def render(task: TrainingOperator, context: Any) -> None:
    """Render the templates of a task; what needs more than the context has becomes the text of its template."""
    environment = task.get_template_env()

    def rendered(value: Any) -> Any:
        try:
            return task.render_template(value, context, environment)
        except Exception:  # noqa: BLE001 - a template may call anything; what fails here is known at run time only
            if isinstance(value, Mapping):
                return {name: rendered(entry) for name, entry in value.items()}
            return [rendered(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    for name in task.template_fields:
        value = getattr(task, name)
        setattr(task, name, _as_text(value if context is None else rendered(value)))


def _as_text(value: Any) -> Any:
    """Replace what Airflow resolves at run time, such as the result of another task, by its template."""
    if isinstance(value, Mapping):
        return {name: _as_text(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_text(entry) for entry in value]
    if isinstance(value, str) or _known(value):
        return value
    text = str(value)
    return UNKNOWN if is_literal(text) else text


def _known(value: Any) -> bool:
    return is_literal(value) or isinstance(value, (ObjectStoragePath, Asset))


def _is_valid(name: str, value: Any) -> bool:
    try:
        TrainingParameters.read(_STAND_INS | {name: value})
    except InvalidParameters:
        return False
    return True


def _size(upload: Upload) -> int:
    with upload.open() as file:
        return file.seek(0, os.SEEK_END)
