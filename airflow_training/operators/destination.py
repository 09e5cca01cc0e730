"""Where the model is wanted: a copy of it that is whole or not there."""

from __future__ import annotations

import shutil
from pathlib import Path

from airflow.sdk import ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

from airflow_training.exceptions import StorageError
from airflow_training.filesystems.folder import files_below
from airflow_training.jobs.saved_model import MARKER


def find_mistakes(destination: str | None) -> list[str]:
    """Tell why nothing could be copied there, as far as that can be known without a model."""
    if destination is None:
        return []
    try:
        target = ObjectStoragePath(destination)
        local = isinstance(target.fs, LocalFileSystem)
    except Exception as error:  # noqa: BLE001 - a scheme without a provider, a connection that is not there, …
        return [f"model_destination cannot be {destination!r}: {error}"]
    if local and "://" not in destination and not Path(destination).is_absolute():
        return [f"model_destination must be an absolute path or a URI, not {destination!r}"]
    return []


def copy_model(location: str, destination: str, job_id: str) -> None:
    """Copy a SavedModel; what lay at the destination is replaced.

    In a file system the folder appears under its name when it is whole. An object store cannot rename a folder: there
    `saved_model.pb`, without which nothing takes the folder for a model, goes first of the old one and comes last of
    the new one.

    Args:
        location: The folder that holds `saved_model.pb`.
        destination: The folder that is to hold it: a path, or a URI that `ObjectStoragePath` takes.
        job_id: Tells the beginnings of a copy from those that others make.

    Raises:
        StorageError: The one cannot be read or the other not be written.
    """
    source, target = ObjectStoragePath(location), ObjectStoragePath(destination)
    try:
        if isinstance(target.fs, LocalFileSystem):
            _copy_to_disk(source, Path(target.path), job_id)
        else:
            _copy_to_store(source, target)
    except Exception as error:  # each store has errors of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise StorageError(f"The model at {location} could not be copied to {destination}: {reason}.") from error


def _copy_to_disk(source: ObjectStoragePath, target: Path, job_id: str) -> None:
    incoming = target.with_name(f".{target.name}-{job_id}")
    replaced = target.with_name(f".{target.name}-{job_id}-replaced")
    for left in (incoming, replaced):
        shutil.rmtree(left, ignore_errors=True)
    for name, file in files_below(source).items():
        (incoming / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(file, ObjectStoragePath(f"file://{incoming / name}"))
    if target.exists():
        target.rename(replaced)
    incoming.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _copy_to_store(source: ObjectStoragePath, target: ObjectStoragePath) -> None:
    files, old = files_below(source), files_below(target)
    if MARKER in old:
        old.pop(MARKER).unlink()
    for name in sorted(files, key=lambda name: name == MARKER):
        _copy(files[name], target / name)
    for name in old.keys() - files.keys():
        old[name].unlink()


def _copy(file: ObjectStoragePath, to: ObjectStoragePath) -> None:
    with file.open("rb") as read, to.open("wb") as write:
        shutil.copyfileobj(read, write)
