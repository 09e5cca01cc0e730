"""A job as a file tells of it: a description of the job API, and the local files that the job needs.

```yaml
job:
  name: census
  env: [{name: EPOCHS, value: 5}]
  execution:
    image: tensorflow/tensorflow:2.21.0
    command: pip3 install -r requirements.txt && python3 train.py --epochs=5
    completionTime: 1h
    resources: {cpus: 2, memory: 4096}
files:                          # name in the job folder: file or folder here, from where this file lies
  train.py: train.py
  requirements.txt: requirements.txt
  data: ../data
```
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_training.exceptions import InvalidParameters
from airflow_training.jobs.description import JobDescription
from airflow_training.jobs.document import mistakes_in, read_document
from airflow_training.jobs.parameters import FileName


class _JobFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    job: JobDescription
    files: dict[FileName, str] = Field(default_factory=dict)


def read_job_file(file: Path) -> tuple[JobDescription, dict[str, Path]]:
    """Read a job file.

    Returns:
        The description, and the files: name in the job folder → file here.

    Raises:
        InvalidParameters: With every mistake in it; what the job API would pass over is one too.
    """
    try:
        document = read_document(file.read_bytes())
        if not isinstance(document, dict):
            raise InvalidParameters([f"{file} must hold `job`, with a description, and may hold `files`"])
        read = _JobFile.model_validate(document, extra="forbid")
    except OSError as error:
        raise InvalidParameters([f"{file} cannot be read: {error.strerror}"]) from error
    except ValidationError as error:
        raise InvalidParameters(mistakes_in(error, frozenset(_JobFile.model_fields))) from None
    except ValueError as error:
        raise InvalidParameters([f"{file} {error}"]) from None
    found: dict[str, Path] = {}
    mistakes: list[str] = []
    for name, place in read.files.items():
        path = file.parent / Path(place).expanduser()
        if not path.exists():
            mistakes.append(f"files.{name}: {path} does not exist")
        for below, local in _files(name, path):
            if below in found:
                mistakes.append(f"files.{below}: is given more than once")
            found[below] = local
    if mistakes:
        raise InvalidParameters(mistakes)
    return read.job, found


def _files(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """The files behind one entry: itself, or all that a folder holds."""
    if not path.is_dir():
        yield name, path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield f"{name}/{file.relative_to(path).as_posix()}", file
