"""The files of a job: in a folder of this machine, or below a prefix of an S3 store.

A script may put a link anywhere and may change its files at any time, so `all` and `read` follow no link.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, Protocol

import obstore
from obstore.exceptions import BaseError, InvalidPathError
from obstore.store import S3Store

from airflow_training.service.atomic_files import opened_untrusted, read_json
from airflow_training.service.errors import StorageUnavailable
from airflow_training.service.runners.container.folders import work_folder
from airflow_training.service.runners.run_folder import WORK, Exit, Spec, UnreadableRecord
from airflow_training.service.storage.s3 import S3Settings, connect

if TYPE_CHECKING:
    from obstore import ObjectMeta

_logger = logging.getLogger(__name__)

MAX_FILES = 100_000
"""The number of files of a job that are listed."""

MAX_NAME = 1024
"""Bytes of a name. Source: Amazon S3's user guide, "Naming Amazon S3 objects"."""

NAME_TOO_LONG = "the name is longer than S3 allows"

_MAX_DEPTH = 32
_MEGABYTE = 1024 * 1024
# Source: Amazon S3's user guide, "Multipart upload limits".
_MAX_PARTS = 10_000
_MIN_PART = 8 * _MEGABYTE
_PROBE = ".airflow-training"


class JobFile(NamedTuple):
    """A file of a job.

    Attributes:
        name: Its path below the folder of the job.
        size: Bytes.
        version: Changes with the content.
    """

    name: str
    size: int
    version: str


class NotCopied(Exception):
    """A file cannot be copied to the bucket; the text is the reason."""


class JobFiles(Protocol):
    """The files of a job, wherever they are."""

    def all(self) -> list[JobFile]:
        """List the files by name, except names that are not printable.

        Raises:
            StorageUnavailable: The store does not respond.
        """

    def read(self, name: str, start: int, most: int) -> bytes:
        """Read a part of a file; empty if the file does not exist any more.

        Raises:
            StorageUnavailable: The store does not respond.
        """

    def fetch(self, work: Path) -> dict[str, str]:
        """Copy all files to a folder, and return their versions, as `versions` does.

        Raises:
            OSError, BaseError: The disk or the store fails.
        """

    def versions(self) -> dict[str, str]:
        """The version of each file by its name: its bytes, and what else changes with its content, as one text.

        Raises:
            OSError, BaseError: The disk or the store fails.
        """

    def copy_to(self, folder: str, name: str) -> None:
        """Copy a file to another folder of the same bucket, within the store and in constant memory.

        Args:
            folder: The other folder, as this one is given in a location.
            name: The name of the file in both.

        Raises:
            OSError, BaseError: The file does not exist any more, or the disk or the store fails.
        """

    def put(self, file: Path, name: str, part: Path) -> None:
        """Copy a file to the job's files, completely or not at all.

        Args:
            file: The file.
            name: The name of the copy.
            part: Where an incomplete copy may be.

        Raises:
            NotCopied: The file can never be copied.
            OSError, BaseError: The disk or the store fails.
        """

    def remove(self) -> bool:
        """Remove all files; False if that is not possible now.

        Raises:
            OSError, BaseError: The store fails.
        """


def files_of(state: Path, timeout: int = 15) -> JobFiles | None:
    """The files of the job with this run folder: its working copy while it runs on this machine, else its bucket.

    Args:
        state: The run folder.
        timeout: Seconds that a store may take to respond.

    Returns:
        None if the job has no files on this machine yet, or none that this version can find.
    """
    try:
        spec = Spec.read(state)
    except UnreadableRecord:
        return None
    if not Exit.exists(state):
        for live in (state / WORK, work_folder(state)):
            if live.is_dir():
                return LocalFiles(live)
        return None
    return open_location(spec.files, timeout)


def open_location(location: Mapping[str, str], timeout: int) -> JobFiles:
    """The files at a location.

    Args:
        location: As `Buckets.location` returns it.
        timeout: Seconds that a store may take to respond.
    """
    if "folder" in location:
        return LocalFiles(Path(location["folder"]))
    settings = S3Settings(**(read_json(Path(location["store"])) or {}))
    return S3Files(connect(settings, timeout), location["prefix"])


class LocalFiles(JobFiles):
    """Files in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[JobFile]:
        with suppress(OSError), opened_untrusted(self._folder, os.O_DIRECTORY) as folder:
            return _printable(islice(_list(folder, PurePosixPath(), _MAX_DEPTH), MAX_FILES))
        return []

    def read(self, name: str, start: int, most: int) -> bytes:
        with suppress(OSError), opened_untrusted(self._folder, os.O_DIRECTORY) as folder:
            return _read(folder, PurePosixPath(name).parts, start, most)
        return b""

    def fetch(self, work: Path) -> dict[str, str]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        versions = self.versions()
        for name in versions:
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._folder / name, target)
        return versions

    def versions(self) -> dict[str, str]:
        if not self._folder.is_dir():
            return {}
        return {str(file.relative_to(self._folder)): _version(facts) for file, facts in walk(self._folder)}

    def copy_to(self, folder: str, name: str) -> None:
        target = Path(folder) / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A link there would be followed.
        target.unlink(missing_ok=True)
        shutil.copy(self._folder / name, target, follow_symlinks=False)

    def put(self, file: Path, name: str, part: Path) -> None:
        if len(os.fsencode(name)) > MAX_NAME:
            raise NotCopied(NAME_TOO_LONG)
        target = self._folder / name
        try:
            with file.open("rb") as source, part.open("wb") as copy:
                part.chmod(0o600)
                shutil.copyfileobj(source, copy, _MEGABYTE)
                copy.flush()
                # The working copy of the job is removed next.
                os.fsync(copy.fileno())
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if target.is_dir():
                raise NotCopied("there is a folder of that name")
            # The bucket may be on another disk than `part`.
            shutil.move(part, target)
        finally:
            part.unlink(missing_ok=True)

    def remove(self) -> bool:
        return remove_folder(self._folder)


class S3Files(JobFiles):
    """Files below a prefix of an S3 store."""

    LARGEST_COPY = 5 * 1024**3
    """Bytes that S3 copies in one request. Source: Amazon S3's API reference, "CopyObject"."""

    def __init__(self, store: S3Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def all(self) -> list[JobFile]:
        with _store_errors():
            return _printable(islice(self._list(), MAX_FILES))

    def read(self, name: str, start: int, most: int) -> bytes:
        # Not a range request: rclone 1.75 responds with the wrong status, and other stores may too.
        content = bytearray()
        with _store_errors(), suppress(FileNotFoundError):
            for piece in obstore.get(self._store, f"{self._prefix}/{name}"):
                content += piece
                if len(content) >= start + most:
                    break
        return bytes(content[start : start + most])

    def fetch(self, work: Path) -> dict[str, str]:
        versions = self.versions()
        for name in versions:
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as copy:
                for piece in obstore.get(self._store, f"{self._prefix}/{name}"):
                    copy.write(piece)
        return versions

    def versions(self) -> dict[str, str]:
        return {self._name(object_): _object_version(object_) for object_ in self._objects()}

    def copy_to(self, folder: str, name: str) -> None:
        source, target = f"{self._prefix}/{name}", f"{folder}/{name}"
        size = obstore.head(self._store, source)["size"]
        if size <= self.LARGEST_COPY:
            obstore.copy(self._store, source, target)
        else:
            chunk = max(_MIN_PART, size // _MAX_PARTS + 1)
            with obstore.open_writer(self._store, target, buffer_size=chunk) as writer:
                for piece in obstore.get(self._store, source).stream(min_chunk_size=_MIN_PART):
                    writer.write(piece)

    def put(self, file: Path, name: str, part: Path) -> None:
        key = f"{self._prefix}/{name}"
        if len(os.fsencode(key)) > MAX_NAME:
            raise NotCopied(NAME_TOO_LONG)
        try:
            self._put(file, key)
        except (InvalidPathError, UnicodeEncodeError) as error:
            raise NotCopied("S3 does not allow such a name") from error
        except BaseError:
            # Is it the store or the file? If the store takes nothing, this raises, and the caller repeats everything.
            obstore.put(self._store, f"{self._prefix}/{_PROBE}", b"")
            obstore.delete(self._store, [f"{self._prefix}/{_PROBE}"])
            try:
                self._put(file, key)
            except BaseError as error:
                raise NotCopied(f"the store rejected it: {str(error).splitlines()[0]}") from error

    def remove(self) -> bool:
        for objects in obstore.list(self._store, self._prefix):
            obstore.delete(self._store, [object_["path"] for object_ in objects])
        return True

    def _put(self, file: Path, key: str) -> None:
        with file.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            obstore.put(self._store, key, content, chunk_size=max(_MIN_PART, size // _MAX_PARTS + 1))

    def _list(self) -> Iterator[JobFile]:
        for object_ in self._objects():
            version = f"{object_['e_tag']} {object_['last_modified'].isoformat()}"
            yield JobFile(self._name(object_), object_["size"], version)

    def _objects(self) -> Iterator[ObjectMeta]:
        for objects in obstore.list(self._store, self._prefix):
            yield from objects

    def _name(self, object_: ObjectMeta) -> str:
        return object_["path"].removeprefix(self._prefix).lstrip("/")


def size_of(version: str) -> int:
    """Bytes of a file with this version, one of `JobFiles.versions`."""
    return int(version.partition(" ")[0])


def walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files below a folder that nothing changes now; folders with too long paths stand for their content."""
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        for name in _names(parent):
            path = parent / name
            facts = path.lstat()
            if stat.S_ISDIR(facts.st_mode) and len(os.fsencode(path.relative_to(folder))) <= MAX_NAME:
                waiting.append(path)
            elif stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode):
                yield path, facts


def remove_folder(folder: Path) -> bool:
    """Remove a folder that a job could write to; False if that is not possible."""
    if folder.parent.resolve() != folder.parent:
        # A job put a link in the way, and what it points to is not the job's.
        _logger.warning("%s is behind a symbolic link and is not removed.", folder)
        return False
    if folder.is_symlink():
        folder.unlink()
        return True
    with suppress(OSError):
        # A job can leave folders without write permission for their owner.
        for inner in (folder, *(Path(top, name) for top, names, _ in os.walk(folder) for name in names)):
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _logger.warning("%s cannot be removed; it will be retried.", folder)
    return not folder.exists()


def _version(facts: os.stat_result) -> str:
    # Without the inode, which a restored backup changes.
    return f"{facts.st_size} {facts.st_mtime_ns}"


def _object_version(object_: ObjectMeta) -> str:
    # Not every store has ETags.
    return f"{object_['size']} {object_['e_tag'] or object_['last_modified'].isoformat()}"


def _names(folder: Path) -> list[str]:
    # Not paths, which take several times the memory: a job may leave millions.
    try:
        return sorted(path.name for path in folder.iterdir())
    except PermissionError:
        # A job can remove the read permission of its own user, which may be ours.
        folder.chmod(0o700)
        return sorted(path.name for path in folder.iterdir())


def _printable(files: Iterable[JobFile]) -> list[JobFile]:
    return sorted(file for file in files if file.name.isprintable())


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        raise StorageUnavailable(
            f"The S3 store with the files of jobs does not answer: {str(error).splitlines()[0]}", code="AT-304"
        ) from error


def _list(folder: int, parent: PurePosixPath, depth: int) -> Iterator[JobFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode):
                    version = f"{facts.st_ino} {facts.st_mtime_ns}"
                    yield JobFile(str(parent / entry.name), facts.st_size, version)
                elif stat.S_ISDIR(facts.st_mode) and depth:
                    with opened_untrusted(entry.name, os.O_DIRECTORY, folder=folder) as inner:
                        yield from _list(inner, parent / entry.name, depth - 1)


def _read(folder: int, parts: tuple[str, ...], start: int, most: int) -> bytes:
    if len(parts) > 1:
        with opened_untrusted(parts[0], os.O_DIRECTORY, folder=folder) as inner:
            return _read(inner, parts[1:], start, most)
    with opened_untrusted(parts[0], os.O_RDONLY, folder=folder) as file:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return b""
        pieces = []
        while most > 0 and (piece := os.pread(file, min(most, _MEGABYTE), start)):
            pieces.append(piece)
            start += len(piece)
            most -= len(piece)
        return b"".join(pieces)
