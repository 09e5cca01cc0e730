"""A job file: the description that the job API takes, and the local files of the job.

```yaml
job:
  name: census
  env: [{name: EPOCHS, value: 5}]
  execution:
    image: tensorflow/tensorflow:2.21.0
    command: pip3 install -r requirements.txt && python3 train.py --epochs=5
    completionTime: 1h
    resources: {cpus: 2, memory: 4096}
files:                          # name in the job folder: local file or folder, relative to this file
  train.py: train.py
  requirements.txt: requirements.txt
  data: ../data
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_training.api.description import JobDescription, read_document, validation_errors
from airflow_training.api.parameters import FileName, check_file_name
from airflow_training.client.local_files import local_files
from airflow_training.exceptions import InvalidParameters


class _JobFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    job: JobDescription
    files: dict[FileName, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)


def read_job_file(file: Path) -> tuple[JobDescription, dict[str, Path]]:
    """Read a job file.

    Returns:
        The description, and the files: name in the job folder → local file.

    Raises:
        InvalidParameters: With every validation error; a field that the job API would ignore is one too.
    """
    document = _document(file)
    files = document.get("files")
    places = files if isinstance(files, dict) else {}
    mistakes: list[str] = []
    found: dict[str, Path] = {}
    for name, place in places.items():
        # Other types are reported below.
        if isinstance(place, str):
            below, mistake = _found(str(name), file.parent, place)
            mistakes += [mistake] if mistake else []
            mistakes += [f"files.{twice}: is given more than once" for twice in sorted(found.keys() & below.keys())]
            found |= below
    try:
        description = _JobFile.model_validate(document, extra="forbid", context={"strict": True}).job
    except ValidationError as error:
        around = frozenset([*_JobFile.model_fields, *map(str, places)])
        raise InvalidParameters([*validation_errors(error, around), *mistakes]) from None
    if mistakes:
        raise InvalidParameters(mistakes)
    return description, found


def _document(file: Path) -> dict[str, Any]:
    try:
        document = read_document(file.read_bytes())
    except OSError as error:
        raise InvalidParameters([f"{file} cannot be read: {error.strerror}"]) from error
    except ValueError as error:
        raise InvalidParameters([f"{file} is neither YAML nor JSON: {error}"]) from None
    if not isinstance(document, dict):
        raise InvalidParameters([f"{file} must have `job`, with a description, and may have `files`"])
    return document


def _found(name: str, folder: Path, place: str) -> tuple[dict[str, Path], str]:
    """The files behind one entry, and the error in it, if there is one."""
    try:
        path = folder / Path(place).expanduser()
        below = local_files(path)
        found = {check_file_name(f"{name}/{inner}" if inner else name): file for inner, file in below.items()}
    except (ValueError, RuntimeError) as error:
        return {}, f"files.{name}: {error}"
    return found, "" if found else f"files.{name}: {path} is an empty folder"
