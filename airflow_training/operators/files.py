"""The files of a training: the script and the data that it uploads, and the copy of its model at a destination."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow.sdk import Asset, ObjectStoragePath
from airflow.sdk.exceptions import AirflowException
from fsspec.implementations.local import LocalFileSystem

from airflow_training.api.parameters import (
    TrainingParameters,
    overridden,
    script_file,
    script_is_text,
)
from airflow_training.api.requirements import REQUIREMENTS_FILE
from airflow_training.api.saved_model import MARKER
from airflow_training.client.local_files import local_files
from airflow_training.client.storage import Upload
from airflow_training.exceptions import StorageError, TrainingError

if TYPE_CHECKING:
    from airflow_training.operators.training import TrainingOperator

_SOURCES = (str, os.PathLike, Asset, ObjectStoragePath)
_CHUNK = 1024 * 1024


def given(task: TrainingOperator) -> dict[str, Any]:
    """The parameters of a task by their names, not validated yet.

    Raises:
        InvalidParameters: Its config cannot be read, or contains what belongs in the connection.
    """
    values = overridden({name: getattr(task, attribute) for name, attribute in task.PARAMETERS.items()}, task.config)
    script = values["script"]
    return values | {"script": str(script) if isinstance(script, (os.PathLike, ObjectStoragePath)) else script}


def dag_folder(task: TrainingOperator) -> Path:
    """The folder of the Dag file, where relative paths start."""
    dag = task.get_dag()
    return Path(dag.folder if dag else ".")


def input_errors(values: Mapping[str, Any], folder: Path) -> list[str]:
    """List the errors of the script and the data files: those that do not exist or cannot be sent.

    Args:
        values: The parameters, not validated yet.
        folder: Where relative paths start.
    """
    script, data = values.get("script"), values.get("data")
    sources = {} if not isinstance(script, str) or script_is_text(script) else {"script": script}
    if isinstance(data, Mapping):
        sources |= {f"data {name!r}": source for name, source in data.items() if not isinstance(source, bytes)}
    return [error for what, source in sources.items() for error in _missing(what, source, folder)]


def locations(parameters: TrainingParameters, folder: Path) -> list[str]:
    """List the URIs and paths of the script and the data, as far as they are files."""
    script = [] if script_is_text(parameters.script) else [parameters.script]
    sources = [*script, *parameters.data.values()]
    return [_location(source, folder) for source in sources if isinstance(source, _SOURCES)]


def uploads(parameters: TrainingParameters, folder: Path) -> list[Upload]:
    """List the files that the job folder needs before the job starts."""
    script = parameters.script.encode() if script_is_text(parameters.script) else parameters.script
    files = [*_files(script_file(parameters.script), script, folder)]
    if REQUIREMENTS_FILE in parameters.folder_files:
        files.append(Upload(REQUIREMENTS_FILE, parameters.requirements.encode()))
    for name, source in parameters.data.items():
        files += _files(name, source, folder)
    return files


def _missing(what: str, source: Any, folder: Path) -> Iterator[str]:
    if not isinstance(source, _SOURCES) or not source:
        return  # another type: the validation of the parameters reports it
    try:
        path = _path(source, folder)
        local = _local(path)
        if not path.exists() and not (local and local.is_symlink()):
            yield f"{what} does not exist: {path}"
        elif what == "script" and path.is_dir():
            yield f"script must be a file: {path} is a directory"
        elif local:
            local_files(local)
    except (OSError, ValueError, ImportError) as error:
        yield f"{what} cannot be read from {source}: {error}"


def _files(name: str, source: Any, folder: Path) -> Iterator[Upload]:
    """The files of one value: itself, or all files of a directory."""
    if isinstance(source, bytes):
        yield Upload(name, source)
        return
    path = _path(source, folder)
    if local := _local(path):
        files = {below: path / below if below else path for below in local_files(local)}
    else:
        files = files_below(path) if path.is_dir() else {"": path}
    for below, file in files.items():
        yield Upload(f"{name}/{below}" if below else name, partial(_open, file))


def _location(source: Any, folder: Path) -> str:
    if isinstance(source, ObjectStoragePath):
        return str(source)
    uri = source.uri if isinstance(source, Asset) else os.fspath(source)
    return uri if "://" in uri else str(folder / uri)


def _path(source: Any, folder: Path) -> ObjectStoragePath:
    return source if isinstance(source, ObjectStoragePath) else ObjectStoragePath(_location(source, folder))


def _local(path: ObjectStoragePath) -> Path | None:
    return Path(path.path) if isinstance(path.fs, LocalFileSystem) else None


def _open(path: ObjectStoragePath) -> BinaryIO:
    return cast("BinaryIO", path.open("rb"))


def files_below(folder: ObjectStoragePath) -> dict[str, ObjectStoragePath]:
    """Find the files of a folder and its subfolders, by their relative names.

    universal-pathlib does not know the relative paths of every file system.
    """
    root = folder.path.rstrip("/") + "/"
    names = sorted(str(path).removeprefix(root) for path in folder.fs.find(root))
    return {name: folder / name for name in names}


def destination_errors(destination: str | None) -> list[str]:
    """List the reasons why no model can be copied to a destination.

    Raises:
        TrainingError: They cannot be found now.
    """
    if not destination:
        return []
    try:
        target = ObjectStoragePath(destination)
        local = isinstance(target.fs, LocalFileSystem)
    except TrainingError as error:
        if error.retryable:
            raise
        return [str(error)]
    except (AirflowException, ImportError, ValueError) as error:
        return [f"model_destination cannot be {destination!r}: {error}"]
    path = target.path.strip("/")
    if local and not destination.removeprefix("file://").startswith("/"):
        required = f"an absolute path or a URI, not {destination!r}"
    elif not path or (not local and "/" not in path):
        required = f"a folder for this model alone, not {destination!r}"
    elif local and _holds_other_files(Path(target.path)):
        required = f"a folder for this model alone: {destination} contains other files"
    else:
        return []
    return [f"model_destination must be {required}"]


def copy_model(location: str, destination: str, job_id: str, ended: threading.Event) -> None:
    """Copy a SavedModel; a model at the destination is replaced.

    In a file system the folder appears under its name when it is complete. An object store cannot rename a folder:
    there `saved_model.pb`, without which a folder is not a model, is the first file of the old model to be removed and
    the last of the new one to be written.

    Args:
        location: The folder with `saved_model.pb`.
        destination: The folder for the copy: a path, or a URI for `ObjectStoragePath`.
        job_id: Distinguishes incomplete copies of different jobs.
        ended: Set when the copy is no longer needed.

    Raises:
        StorageError: The model cannot be read, or the destination cannot be written.
    """
    source, target = ObjectStoragePath(location), ObjectStoragePath(destination)
    try:
        if isinstance(target.fs, LocalFileSystem):
            _copy_to_disk(source, Path(target.path), job_id, ended)
        else:
            _copy_to_store(source, target, ended)
    except Exception as error:  # each store has errors of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise StorageError(
            f"The model at {location} could not be copied to {destination}: {reason}.", code="AT-331"
        ) from error


def _copy_to_disk(source: ObjectStoragePath, target: Path, job_id: str, ended: threading.Event) -> None:
    incoming = target.with_name(f".{target.name}-{job_id}")
    replaced = target.with_name(f".{target.name}-{job_id}-replaced")
    if replaced.exists() and not target.exists():
        replaced.rename(target)  # a copy was interrupted between its last two steps
    for left in (incoming, replaced):
        shutil.rmtree(left, ignore_errors=True)
    if _holds_other_files(target):
        raise FileExistsError("it contains other files")
    for name, file in files_below(source).items():
        (incoming / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(file, ObjectStoragePath(f"file://{incoming / name}"), ended)
    if target.exists():
        target.rename(replaced)
    incoming.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _copy_to_store(source: ObjectStoragePath, target: ObjectStoragePath, ended: threading.Event) -> None:
    files, old = files_below(source), files_below(target)
    # Files without a model belong to somebody else, or to an incomplete copy: they stay.
    gone = old.keys() - files.keys() if MARKER in old else set()
    if MARKER in old:
        old[MARKER].unlink()
    for name in sorted(files, key=lambda name: name == MARKER):
        _copy(files[name], target / name, ended)
    for name in gone:
        old[name].unlink()


def _holds_other_files(folder: Path) -> bool:
    return folder.exists() and not (folder / MARKER).is_file() and any(folder.iterdir())


def _copy(file: ObjectStoragePath, to: ObjectStoragePath, ended: threading.Event) -> None:
    with file.open("rb") as read, to.open("wb") as write:
        while chunk := read.read(_CHUNK):
            if ended.is_set():
                raise InterruptedError("the task has ended")
            write.write(chunk)
