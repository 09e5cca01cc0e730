"""The model of a job among its files, its format, and the file that has its signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from airflow_training.api.model import MARKER, describe_choice, describe_missing, find_models
from airflow_training.api.parameters import SAVED_MODEL
from airflow_training.service.runners.run_folder import Spec, UnreadableRecord, read_inputs
from airflow_training.service.storage.job_files import JobFile, files_of

Format = Literal["SavedModel", "ONNX", "MLflow", ""]

MLFLOW_FILE = "MLmodel"
"""The file that makes a folder a model of MLflow. Source: MLflow's documentation, "MLflow Models: Storage Format"."""


@dataclass(frozen=True)
class JobModel:
    """What a job hands on.

    Attributes:
        path: Its path in the job folder; "." for the job folder itself.
        files: Its files, by their paths in its folder; by its name if it is a file.
        format: Its format; empty if it is not known.
        described_by: The file with its signatures; None if the format has none.
        choice: Which of several models it is, in a sentence.
    """

    path: str
    files: Mapping[str, JobFile]
    format: Format
    described_by: JobFile | None
    choice: str


def find_model(state: Path, timeout: int = 15) -> JobModel | str:
    """Find what the job with this run folder hands on; a text has what is missing.

    Args:
        state: The run folder.
        timeout: Seconds that a store may take to respond.

    Raises:
        StorageUnavailable: The store does not respond.
    """
    try:
        given = Spec.read(state).model
    except UnreadableRecord:
        given = None
    # Empty is nothing in a description, which None is for a task.
    model = SAVED_MODEL if given is None else given or None
    listed = files_of(state, timeout)
    files = {file.name: file for file in listed.all()} if listed else {}
    inputs = (read_inputs(state) or {}).keys()
    found = find_models(files, model, inputs)
    if not files or not found:
        return describe_missing(files, model, inputs)
    path = found[0]
    folder = "" if path == "." else f"{path}/"
    inside = {name.removeprefix(folder): file for name, file in files.items() if name.startswith(folder)}
    own = inside or {PurePosixPath(path).name: files[path]}
    format_, described_by = _format(own)
    return JobModel(path, own, format_, described_by, describe_choice(found, model))


def _format(files: Mapping[str, JobFile]) -> tuple[Format, JobFile | None]:
    if MARKER in files:
        return "SavedModel", files[MARKER]
    if MLFLOW_FILE in files:
        return "MLflow", files[MLFLOW_FILE]
    graphs = [file for name, file in files.items() if name.endswith(".onnx") and "/" not in name]
    return ("ONNX", graphs[0]) if len(graphs) == 1 else ("", None)
