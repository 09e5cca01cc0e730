"""Looking into the files of a job: where it works on them while it runs on this machine, else in its bucket.

Whoever wrote the script may have put a link anywhere, and may change what lies there at any time: no link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import obstore
from obstore.exceptions import BaseError

from airflow_training.service.durable_files import opened, read_json
from airflow_training.service.errors import StorageAway
from airflow_training.service.runners.container import state as container_state
from airflow_training.service.runners.run_folder import EXIT, SPECIFICATION, WORK
from airflow_training.service.storage.s3 import S3Settings, connect

MOST_FILES = 100_000
"""Files of a job that are looked at."""

_DEEPEST = 32


class JobFile(NamedTuple):
    """A file of a job.

    Attributes:
        name: Its path below the folder of the job.
        size: Bytes.
        version: What is another one when the content is.
    """

    name: str
    size: int
    version: str


class JobFiles(Protocol):
    """The files of a job."""

    def all(self) -> list[JobFile]:
        """Name the files, in the order of their names, but for those whose names are no text.

        Raises:
            StorageAway: The store does not answer.
        """

    def read(self, name: str, start: int, most: int) -> bytes:
        """Read a part of a file; empty where it is not there any more.

        Raises:
            StorageAway: The store does not answer.
        """


def files_of(state: Path, patience: int = 15) -> JobFiles | None:
    """The files of the job of a state folder; None where there are none yet on this machine.

    Args:
        state: The state folder.
        patience: How many seconds a store may take to answer.
    """
    specification = read_json(state / SPECIFICATION)
    if not specification:
        return None
    if not (state / EXIT).exists():
        for live in (state / WORK, container_state.folder_of(state) / container_state.WORK):
            if live.is_dir():
                return _Folder(live)
        return None
    files: dict[str, str] = specification["files"]
    if "folder" in files:
        return _Folder(Path(files["folder"]))
    return _Prefix(Path(files["store"]), files["prefix"], patience)


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[JobFile]:
        with suppress(OSError), opened(self._folder, os.O_DIRECTORY) as folder:
            return _named(islice(_walk(folder, PurePosixPath(), _DEEPEST), MOST_FILES))
        return []

    def read(self, name: str, start: int, most: int) -> bytes:
        with suppress(OSError), opened(self._folder, os.O_DIRECTORY) as folder:
            return _read(folder, PurePosixPath(name).parts, start, most)
        return b""


class _Prefix:
    def __init__(self, store: Path, prefix: str, patience: int) -> None:
        self._store = connect(S3Settings(**(read_json(store) or {})), patience)
        self._prefix = prefix

    def all(self) -> list[JobFile]:
        found = []
        with _answers():
            for listed in obstore.list(self._store, self._prefix):
                for file in listed:
                    name = file["path"].removeprefix(self._prefix).lstrip("/")
                    found.append(JobFile(name, file["size"], f"{file['e_tag']} {file['last_modified'].isoformat()}"))
                if len(found) >= MOST_FILES:
                    break
        return _named(found[:MOST_FILES])

    def read(self, name: str, start: int, most: int) -> bytes:
        # Not every store answers a request for a part as S3 does: rclone 1.75 has the wrong status for it.
        content = bytearray()
        with _answers(), suppress(FileNotFoundError):
            for piece in obstore.get(self._store, f"{self._prefix}/{name}"):
                content += piece
                if len(content) >= start + most:
                    break
        return bytes(content[start : start + most])


def _named(files: Iterable[JobFile]) -> list[JobFile]:
    return sorted(file for file in files if file.name.isprintable())


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        raise StorageAway(
            f"The S3 store with the files of jobs does not answer: {str(error).splitlines()[0]}", code="AT-304"
        ) from error


def _walk(folder: int, above: PurePosixPath, deeper: int) -> Iterator[JobFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode):
                    version = f"{facts.st_ino} {facts.st_mtime_ns}"
                    yield JobFile(str(above / entry.name), facts.st_size, version)
                elif stat.S_ISDIR(facts.st_mode) and deeper:
                    with opened(entry.name, os.O_DIRECTORY, folder=folder) as inner:
                        yield from _walk(inner, above / entry.name, deeper - 1)


def _read(folder: int, parts: tuple[str, ...], start: int, most: int) -> bytes:
    if len(parts) > 1:
        with opened(parts[0], os.O_DIRECTORY, folder=folder) as inner:
            return _read(inner, parts[1:], start, most)
    with opened(parts[0], os.O_RDONLY, folder=folder) as file:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return b""
        pieces = []
        while most > 0 and (piece := os.pread(file, min(most, 1024 * 1024), start)):
            pieces.append(piece)
            start += len(piece)
            most -= len(piece)
        return b"".join(pieces)
