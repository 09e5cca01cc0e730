"""Where the model is wanted: a copy of it that is whole or not there."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from airflow.sdk import ObjectStoragePath
from airflow.sdk.exceptions import AirflowException
from fsspec.implementations.local import LocalFileSystem

from airflow_training.api.saved_model import MARKER
from airflow_training.exceptions import StorageError, TrainingError
from airflow_training.filesystems.folder import files_below

_PIECE = 1024 * 1024


def find_mistakes(destination: str | None) -> list[str]:
    """Tell why nothing could be copied there, as far as that can be known without a model.

    Raises:
        TrainingError: It cannot be known now.
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
        mistake = f"an absolute path or a URI, not {destination!r}"
    elif not path or (not local and "/" not in path):
        mistake = f"a folder for this model alone, not {destination!r}"
    elif local and _holds_something_else(Path(target.path)):
        mistake = f"a folder for this model alone: {destination} holds other files"
    else:
        return []
    return [f"model_destination must be {mistake}"]


def copy_model(location: str, destination: str, job_id: str, ended: threading.Event) -> None:
    """Copy a SavedModel; a model that lay at the destination is replaced.

    In a file system the folder appears under its name when it is whole. An object store cannot rename a folder: there
    `saved_model.pb`, without which nothing takes the folder for a model, goes first of the old one and comes last of
    the new one.

    Args:
        location: The folder that holds `saved_model.pb`.
        destination: The folder that is to hold it: a path, or a URI that `ObjectStoragePath` takes.
        job_id: Tells the beginnings of a copy from those that others make.
        ended: Is set when the copy is not wanted any more.

    Raises:
        StorageError: The one cannot be read or the other not be written.
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
        replaced.rename(target)  # a copy was cut off between its last two steps
    for left in (incoming, replaced):
        shutil.rmtree(left, ignore_errors=True)
    if _holds_something_else(target):
        raise FileExistsError("it holds other files")
    for name, file in files_below(source).items():
        (incoming / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(file, ObjectStoragePath(f"file://{incoming / name}"), ended)
    if target.exists():
        target.rename(replaced)
    incoming.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _copy_to_store(source: ObjectStoragePath, target: ObjectStoragePath, ended: threading.Event) -> None:
    files, old = files_below(source), files_below(target)
    # What is no model is somebody else's, or the beginning of a copy: it stays.
    gone = old.keys() - files.keys() if MARKER in old else set()
    if MARKER in old:
        old[MARKER].unlink()
    for name in sorted(files, key=lambda name: name == MARKER):
        _copy(files[name], target / name, ended)
    for name in gone:
        old[name].unlink()


def _holds_something_else(folder: Path) -> bool:
    return folder.exists() and not (folder / MARKER).is_file() and any(folder.iterdir())


def _copy(file: ObjectStoragePath, to: ObjectStoragePath, ended: threading.Event) -> None:
    with file.open("rb") as read, to.open("wb") as write:
        while piece := read.read(_PIECE):
            if ended.is_set():
                raise InterruptedError("the task has ended")
            write.write(piece)
