"""The model of a job among its files, its format, and the file that has its signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from airflow_training.api.model import (
    MARKER,
    describe_choice,
    describe_missing,
    find_models,
    model_of_description,
)
from airflow_training.service.atomic_files import read_json
from airflow_training.service.runners.run_folder import Spec, UnreadableRecord
from airflow_training.service.runners.supervisor.copy_in_and_back import FETCHED
from airflow_training.service.storage.job_files import JobFile, files_of

Format = Literal["SavedModel", "ONNX", "MLflow", ""]

MLFLOW_FILE = "MLmodel"
"""The file that makes a folder a model of MLflow. Source: MLflow's documentation, "MLflow Models: Storage Format"."""


@dataclass(frozen=True)
class JobModel:
    """What a job hands on.

    Attributes:
        path: Its path in the job folder; "." for the job folder itself.
        files: Its files, with their names in the job folder.
        format: Its format; empty if it is not known.
        described_by: The file with its signatures; None if the format has none.
        choice: Which of several models it is, in a sentence.
    """

    path: str
    files: Sequence[JobFile]
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
        model = model_of_description(Spec.read(state).model)
    except UnreadableRecord:
        model = model_of_description(None)
    listed = files_of(state, timeout)
    files = {file.name: file for file in listed.all()} if listed else {}
    # A node of Ray fetches the files itself: there an input may be taken for the model.
    inputs = (read_json(state / FETCHED) or {}).keys()
    found = find_models(files, model, inputs)
    if not files or not found:
        return describe_missing(files, model, inputs)
    path = found[0]
    inside = "" if path == "." else f"{path}/"
    own = [file for name, file in files.items() if name == path or name.startswith(inside)]
    format_, described_by = _format(path, {PurePosixPath(file.name).relative_to(path): file for file in own})
    return JobModel(path, own, format_, described_by, describe_choice(found, model))


def _format(path: str, files: dict[PurePosixPath, JobFile]) -> tuple[Format, JobFile | None]:
    markers: dict[str, Format] = {MARKER: "SavedModel", MLFLOW_FILE: "MLflow"}
    for name, format_ in markers.items():
        if found := files.get(PurePosixPath(name)):
            return format_, found
    graphs = [
        file for name, file in files.items() if PurePosixPath(path, name).suffix == ".onnx" and len(name.parts) < 2
    ]
    return ("ONNX", graphs[0]) if len(graphs) == 1 else ("", None)
