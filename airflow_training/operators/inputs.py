"""What a training reads, found before anything is sent: the script and the data files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow.sdk import Asset, ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

from airflow_training.api.parameters import (
    TrainingParameters,
    overridden,
    script_file,
    script_is_text,
)
from airflow_training.api.requirements import REQUIREMENTS_FILE
from airflow_training.client.local_files import local_files
from airflow_training.client.storage import Upload
from airflow_training.filesystems.folder import files_below

if TYPE_CHECKING:
    from airflow_training.operators.training import TrainingOperator

_PLACES = (str, os.PathLike, Asset, ObjectStoragePath)


def given(task: TrainingOperator) -> dict[str, Any]:
    """What a task is to train with, by the names of the parameters; they may be wrong in any way.

    Raises:
        InvalidParameters: Its config cannot be read, or it holds what belongs in the connection.
    """
    values = overridden({name: getattr(task, attribute) for name, attribute in task.PARAMETERS.items()}, task.config)
    return values | {"script": _as_text(values["script"])}


def folder_of(task: TrainingOperator) -> Path:
    """What relative paths are relative to: the folder of the Dag's file."""
    dag = task.get_dag()
    return Path(dag.folder if dag else ".")


def find_mistakes(values: Mapping[str, Any], folder: Path) -> list[str]:
    """Tell which of the script and the data files are not there, or cannot be sent.

    Args:
        values: The parameters, which may be wrong in any way.
        folder: What relative paths are relative to.
    """
    script, data = values.get("script"), values.get("data")
    wanted = {} if not isinstance(script, str) or script_is_text(script) else {"script": script}
    if isinstance(data, Mapping):
        wanted |= {f"data {name!r}": place for name, place in data.items() if not isinstance(place, bytes)}
    return [mistake for what, place in wanted.items() for mistake in _missing(what, place, folder)]


def locations(parameters: TrainingParameters, folder: Path) -> list[str]:
    """List where the script and the data lie, as far as they are files: URIs and paths."""
    script = [] if script_is_text(parameters.script) else [parameters.script]
    places = [*script, *parameters.data.values()]
    return [_location(place, folder) for place in places if isinstance(place, _PLACES)]


def uploads(parameters: TrainingParameters, folder: Path) -> list[Upload]:
    """List the files that the job folder must hold before the job starts."""
    script = parameters.script.encode() if script_is_text(parameters.script) else parameters.script
    files = [*_files(script_file(parameters.script), script, folder)]
    if REQUIREMENTS_FILE in parameters.folder_files:
        files.append(Upload(REQUIREMENTS_FILE, parameters.requirements.encode()))
    for name, place in parameters.data.items():
        files += _files(name, place, folder)
    return files


def _as_text(place: Any) -> Any:
    """Write a path as text; anything else is returned as it is."""
    return str(place) if isinstance(place, (os.PathLike, ObjectStoragePath)) else place


def _missing(what: str, place: Any, folder: Path) -> Iterator[str]:
    if not isinstance(place, _PLACES) or not place:
        return  # not a place at all: the vocabulary says so
    try:
        path = _path(place, folder)
        local = _local(path)
        if not path.exists() and not (local and local.is_symlink()):
            yield f"{what} is not there: {path} does not exist"
        elif what == "script" and path.is_dir():
            yield f"script must be a file: {path} is a directory"
        elif local:
            local_files(local)
    except (OSError, ValueError, ImportError) as error:
        yield f"{what} cannot be read from {place}: {error}"


def _files(name: str, place: Any, folder: Path) -> Iterator[Upload]:
    """The files behind one value: itself, or all that a directory holds."""
    if isinstance(place, bytes):
        yield Upload(name, place)
        return
    path = _path(place, folder)
    if local := _local(path):
        files = {below: path / below if below else path for below in local_files(local)}
    else:
        files = files_below(path) if path.is_dir() else {"": path}
    for below, file in files.items():
        yield Upload(f"{name}/{below}" if below else name, partial(_open, file))


def _location(place: Any, folder: Path) -> str:
    if isinstance(place, ObjectStoragePath):
        return str(place)
    uri = place.uri if isinstance(place, Asset) else os.fspath(place)
    return uri if "://" in uri else str(folder / uri)


def _path(place: Any, folder: Path) -> ObjectStoragePath:
    return place if isinstance(place, ObjectStoragePath) else ObjectStoragePath(_location(place, folder))


def _local(path: ObjectStoragePath) -> Path | None:
    return Path(path.path) if isinstance(path.fs, LocalFileSystem) else None


def _open(path: ObjectStoragePath) -> BinaryIO:
    return cast("BinaryIO", path.open("rb"))
