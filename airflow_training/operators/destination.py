"""The copy of a model at its destination: complete, or not there.

What makes a copy complete is written last: in a SavedModel its `saved_model.pb`, in others a record of their names. By
it an earlier copy is recognized, which the next one replaces; other files are somebody else's.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from airflow.sdk import ObjectStoragePath
from airflow.sdk.exceptions import AirflowException
from fsspec.implementations.local import LocalFileSystem

from airflow_training.api.model import MARKER
from airflow_training.exceptions import StorageError, TrainingError
from airflow_training.operators.files import files_below

RECORD = ".airflow-training.json"
"""The names of the files of a copy that is not a SavedModel, as a list."""

_CHUNK = 1024 * 1024


def destination_errors(destination: str | None, model: str | None) -> list[str]:
    """List the reasons why no model can be copied to a destination.

    Args:
        destination: The destination; none or empty without one.
        model: What the job hands on.

    Raises:
        TrainingError: They cannot be found now.
    """
    if not destination:
        return []
    if model is None:
        return ["model_destination requires a model: model=None is a job without one"]
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


def copy_model(location: str, destination: str, job_id: str, ended: threading.Event) -> str:
    """Copy a model, a file or a folder, into a folder; a model that is there is replaced.

    In a file system the folder appears under its name when it is complete. An object store cannot rename a folder:
    there the file that makes a copy complete is the first file of the old copy to be removed and the last of the new
    one to be written.

    Args:
        location: The model.
        destination: The folder for the copy: a path, or a URI for `ObjectStoragePath`.
        job_id: Distinguishes incomplete copies of different jobs.
        ended: Set when the copy is no longer needed.

    Returns:
        The location of the copy: the folder, or for a file the file in it.

    Raises:
        StorageError: The model cannot be read, or the destination cannot be written.
    """
    source, target = ObjectStoragePath(location), ObjectStoragePath(destination)
    try:
        file = source.name if source.is_file() else ""
        files = {file: source} if file else files_below(source)
        if not files:
            raise FileNotFoundError("it has no files")
        if isinstance(target.fs, LocalFileSystem):
            _copy_to_disk(files, Path(target.path), job_id, ended)
        else:
            _copy_to_store(files, target, ended)
    except Exception as error:  # each store has errors of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise StorageError(
            f"The model at {location} could not be copied to {destination}: {reason}.", code="AT-331"
        ) from error
    return f"{destination.rstrip('/')}/{file}" if file else destination


def _copy_to_disk(files: Mapping[str, ObjectStoragePath], target: Path, job_id: str, ended: threading.Event) -> None:
    incoming = target.with_name(f".{target.name}-{job_id}")
    replaced = target.with_name(f".{target.name}-{job_id}-replaced")
    if replaced.exists() and not target.exists():
        replaced.rename(target)  # a copy was interrupted between its last two steps
    for left in (incoming, replaced):
        shutil.rmtree(left, ignore_errors=True)
    if _holds_other_files(target):
        raise FileExistsError("it contains other files")
    for name, file in files.items():
        (incoming / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(file, ObjectStoragePath(f"file://{incoming / name}"), ended)
    if MARKER not in files:
        (incoming / RECORD).write_text(_record(files))
    if target.exists():
        target.rename(replaced)
    incoming.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _copy_to_store(files: Mapping[str, ObjectStoragePath], target: ObjectStoragePath, ended: threading.Event) -> None:
    there = files_below(target)
    # Other files belong to somebody else, or to an incomplete copy: they stay.
    old = set(there) if MARKER in there else _recorded(there[RECORD].read_bytes()) if RECORD in there else set()
    for last in {MARKER, RECORD} & old & there.keys():
        there[last].unlink()
    for name in sorted(files, key=lambda name: name == MARKER):
        _copy(files[name], target / name, ended)
    if MARKER not in files:
        (target / RECORD).write_text(_record(files))
    for name in (old & there.keys()) - files.keys() - {MARKER, RECORD}:
        there[name].unlink()


def _holds_other_files(folder: Path) -> bool:
    if not folder.exists() or (folder / MARKER).is_file():
        return False
    record = folder / RECORD
    own = _recorded(record.read_bytes()) if record.is_file() else set()
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return not folder.is_dir() or any(str(path.relative_to(folder)) not in own for path in found)


def _record(files: Mapping[str, object]) -> str:
    return json.dumps(sorted(files))


def _recorded(record: bytes) -> set[str]:
    """The names in a record, and its own; none if it is no record."""
    try:
        names = json.loads(record)
    except ValueError:
        return set()
    return {RECORD, *map(str, names)} if isinstance(names, list) else set()


def _copy(file: ObjectStoragePath, to: ObjectStoragePath, ended: threading.Event) -> None:
    try:
        with file.open("rb") as read, to.open("wb") as write:
            while chunk := read.read(_CHUNK):
                if ended.is_set():
                    raise InterruptedError("the task has ended")
                write.write(chunk)
    except BaseException:
        # A store keeps what was written until then.
        with suppress(Exception):
            to.unlink()
        raise
