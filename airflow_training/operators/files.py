"""The files of a training: the script, the code and the data that it uploads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow.sdk import Asset, ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

from airflow_training.api.parameters import TrainingParameters, overridden, script_is_path, script_is_text
from airflow_training.api.requirements import REQUIREMENTS_FILE, is_name_of_a_file
from airflow_training.client.local_files import local_files
from airflow_training.client.storage import Upload
from airflow_training.exceptions import InvalidParameters
from airflow_training.operators.requirements_file import read_requirements

if TYPE_CHECKING:
    from airflow_training.operators.training import TrainingOperator

_SOURCES = (str, os.PathLike, Asset, ObjectStoragePath)
# `.git` and `.venv` above all.
_NOT_CODE = re.compile(r"(^|/)(\.|__pycache__/)")


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


def with_requirements(values: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Read the file with the requirements, if they are one, in place of its name.

    Args:
        values: The parameters, not validated yet.
        folder: Where relative paths start.

    Returns:
        The parameters, and the errors of the file, without which they have no requirements.
    """
    source = values.get("requirements")
    if not isinstance(source, _SOURCES) or (isinstance(source, str) and not is_name_of_a_file(source)):
        return dict(values), []
    source = source.strip() if isinstance(source, str) else source
    text, errors = "", [*_missing("requirements", source, folder)]
    if not errors:
        try:
            text = read_requirements(_path(source, folder))
        except (OSError, ValueError, ImportError) as error:
            errors = [f"requirements cannot be read from {source}: {error}"]
    return {**values, "requirements": text}, errors


def input_errors(values: Mapping[str, Any], folder: Path) -> list[str]:
    """List the errors of the script and the data files: those that do not exist or cannot be sent.

    Args:
        values: The parameters, not validated yet.
        folder: Where relative paths start.
    """
    script, code, data = values.get("script"), values.get("source_dir"), values.get("data")
    sources: dict[str, Any] = {} if code is None else {"source_dir": code}
    if isinstance(script, str) and script_is_path(script):
        if code is None:
            sources["script"] = script
        elif isinstance(code, _SOURCES):
            sources["script"] = f"{_location(code, folder).rstrip('/')}/{script}"
    if isinstance(data, Mapping):
        sources |= {f"data {name!r}": source for name, source in data.items() if not isinstance(source, bytes)}
    return [error for what, source in sources.items() for error in _missing(what, source, folder)]


def locations(parameters: TrainingParameters, folder: Path) -> list[str]:
    """List the URIs and paths of the script and the data, as far as they are files."""
    script = [parameters.script] if script_is_path(parameters.script) else []
    code = script if parameters.source_dir is None else [parameters.source_dir]
    sources = [*code, *parameters.data.values()]
    return [_location(source, folder) for source in sources if isinstance(source, _SOURCES)]


def uploads(parameters: TrainingParameters, folder: Path) -> list[Upload]:
    """List the files that the job folder needs before the job starts.

    Raises:
        InvalidParameters: Two of them have the same name.
    """
    script = parameters.script
    own: list[Upload] = []
    if script_is_text(script):
        own.append(Upload(parameters.script_file, script.encode()))
    elif parameters.source_dir is None and script_is_path(script):
        own += _files(parameters.script_file, script, folder)
    if parameters.has_requirements:
        own.append(Upload(REQUIREMENTS_FILE, parameters.requirements.encode()))
    code = [] if parameters.source_dir is None else [*_files("", parameters.source_dir, folder, of_code=True)]
    data = [upload for name, source in parameters.data.items() for upload in _files(name, source, folder)]
    # The job's own script and requirements replace those of the code.
    taken = {upload.name for upload in own}
    code = [upload for upload in code if upload.name not in taken]
    if twice := sorted({upload.name for upload in code} & {upload.name for upload in data}):
        raise InvalidParameters([f"data must not contain {twice[0]!r}: source_dir has a file of that name"])
    return [*own, *code, *data]


def _missing(what: str, source: Any, folder: Path) -> Iterator[str]:
    if not isinstance(source, _SOURCES) or not source:
        return  # another type: the validation of the parameters reports it
    try:
        path = _path(source, folder)
        local = _local(path)
        if not path.exists() and not (local and local.is_symlink()):
            yield f"{what} does not exist: {path}"
        elif what == "script" and path.is_dir():
            yield f"script must be a file: {path} is a directory; a folder of code is source_dir"
        elif what == "source_dir" and not path.is_dir():
            yield f"source_dir must be a folder: {path} is a file"
        elif local:
            local_files(local)
    except (OSError, ValueError, ImportError) as error:
        yield f"{what} cannot be read from {source}: {error}"


def _files(name: str, source: Any, folder: Path, *, of_code: bool = False) -> Iterator[Upload]:
    """The files of one value: itself, or all files of a directory; of code, without hidden files and caches."""
    if isinstance(source, bytes):
        yield Upload(name, source)
        return
    path = _path(source, folder)
    if local := _local(path):
        files = {below: path / below if below else path for below in local_files(local)}
    else:
        files = files_below(path) if path.is_dir() else {"": path}
    for below, file in files.items():
        if not of_code or not _NOT_CODE.search(below):
            yield Upload("/".join(filter(None, (name, below))), partial(_open, file))


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
