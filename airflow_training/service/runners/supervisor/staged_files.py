"""Copies a job's files to where it works, and back: `python -m … fetch|send <JSON of what and where>`."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import obstore
from obstore.exceptions import BaseError, InvalidPathError

from airflow_training.service.durable_files import read_json, write_json
from airflow_training.service.storage.s3 import open_store

_FETCHED = "fetched.json"

# S3 has no longer names. Source: Amazon S3's user guide, "Naming Amazon S3 objects".
_LONGEST_NAME = 1024
_TOO_LONG = "the name is longer than S3 has them"
_MEGABYTE = 1024 * 1024
# A file is sent in ten thousand parts at most. Source: Amazon S3's user guide, "Multipart upload limits".
_MOST_PARTS = 10_000
_LEAST_PART = 8 * _MEGABYTE
_PROBE = ".airflow-training"
# So many files that are not brought back are named.
_MOST_NAMED = 20

# A disk that is full or fails will do better another time; what else may be wrong with a file stays so.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE})


class _NotCopied(Exception):
    """A file cannot be copied; the text says why."""


class _Bucket(Protocol):
    """The folder of a job in its bucket, wherever that is."""

    def fetch(self, work: Path) -> None:
        """Copy everything to a folder."""

    def put(self, file: Path, name: str) -> None:
        """Copy a file, whole or not at all.

        Raises:
            _NotCopied: It never can be.
        """


class _Folder:
    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._part = state / "file.part"

    def fetch(self, work: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, _ in _files(self._folder):
            target = work / file.relative_to(self._folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            shutil.copymode(file, target)

    def put(self, file: Path, name: str) -> None:
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise _NotCopied(_TOO_LONG)
        target = self._folder / name
        try:
            self._copy(file)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if target.is_dir():
                raise _NotCopied("there is a folder of that name")
            # Also where the bucket is on another disk than the states of jobs.
            shutil.move(self._part, target)
        finally:
            self._part.unlink(missing_ok=True)

    def _copy(self, file: Path) -> None:
        with file.open("rb") as source, self._part.open("wb") as part:
            self._part.chmod(0o600)
            shutil.copyfileobj(source, part, _MEGABYTE)
            part.flush()
            # The copy that the job worked on is removed next.
            os.fsync(part.fileno())


class _Prefix:
    def __init__(self, store: Path, prefix: str) -> None:
        self._store = open_store(store)
        self._prefix = prefix

    def fetch(self, work: Path) -> None:
        for listed in obstore.list(self._store, self._prefix):
            for file in listed:
                name = file["path"].removeprefix(self._prefix).lstrip("/")
                target = work / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as copy:
                    for piece in obstore.get(self._store, file["path"]):
                        copy.write(piece)

    def put(self, file: Path, name: str) -> None:
        key = f"{self._prefix}/{name}"
        if len(os.fsencode(key)) > _LONGEST_NAME:
            raise _NotCopied(_TOO_LONG)
        try:
            self._put(file, key)
        except (InvalidPathError, UnicodeEncodeError) as error:
            raise _NotCopied("S3 has no such names") from error
        except BaseError:
            # Whether it is the store or this file: while the store takes nothing, all is tried again.
            obstore.put(self._store, f"{self._prefix}/{_PROBE}", b"")
            obstore.delete(self._store, [f"{self._prefix}/{_PROBE}"])
            self._put_again(file, key)

    def _put_again(self, file: Path, key: str) -> None:
        try:
            self._put(file, key)
        except BaseError as error:
            raise _NotCopied(f"the store refuses it: {str(error).splitlines()[0]}") from error

    def _put(self, file: Path, key: str) -> None:
        with file.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            obstore.put(self._store, key, content, chunk_size=max(_LEAST_PART, size // _MOST_PARTS + 1))


def fetch(bucket: _Bucket, work: Path, state: Path, owner: int) -> None:
    """Copy the files of a job to the folder that it works in; what was copied before is left as it is.

    Args:
        bucket: The job's folder in the bucket.
        work: The folder that it works in.
        state: The job's state folder, where is noted what was copied.
        owner: The user that the job runs as.
    """
    if (state / _FETCHED).exists():
        return
    bucket.fetch(work)
    if os.getuid() == 0:
        for path in (work, *work.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)
    write_json(state / _FETCHED, {str(file.relative_to(work)): _version(facts) for file, facts in _files(work)})


def send(work: Path, bucket: _Bucket, state: Path, most: int) -> list[str]:
    """Copy what the job wrote or changed back to its folder in the bucket; safe to repeat.

    Args:
        work: The folder that it worked in; nothing of it may run any more.
        bucket: The job's folder in the bucket.
        state: The job's state folder.
        most: Bytes that may be copied. On the disk, a file with holes takes less than it has.

    Returns:
        What was not copied, and why, in a line each.
    """
    fetched: dict[str, Any] | None = read_json(state / _FETCHED)
    if fetched is None or not work.is_dir():
        # Never brought here, or brought back and removed already.
        return []
    not_copied = []
    for file, facts in _files(work):
        name = str(file.relative_to(work))
        if fetched.get(name) == _version(facts):
            continue
        try:
            if file.is_dir():
                raise _NotCopied(_TOO_LONG)
            if facts.st_size > most:
                raise _NotCopied("the files of the job are larger than --job-disk allows")
            bucket.put(file, name)
        except _NotCopied as error:
            not_copied.append(f"{name[:200]!r} is not in the bucket: {error}.")
        except OSError as error:
            if error.errno in _PASSING:
                raise
            not_copied.append(f"{name[:200]!r} is not in the bucket: {error.strerror}.")
        else:
            most -= facts.st_size
    return not_copied


def _files(work: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files below a folder; of folders whose names are too long together, only these folders themselves."""
    waiting = [work]
    while waiting:
        folder = waiting.pop()
        for entry in _entries(folder):
            path = Path(entry.path)
            facts = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode) and len(os.fsencode(path.relative_to(work))) <= _LONGEST_NAME:
                waiting.append(path)
            elif stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode):
                yield path, facts


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        # A job can take the right to look into a folder from its own user, which may be ours.
        folder.chmod(0o700)
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)


def _version(facts: os.stat_result) -> list[int]:
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def _bucket(files: Mapping[str, str], state: Path) -> _Bucket:
    if "folder" in files:
        return _Folder(Path(files["folder"]), state)
    return _Prefix(Path(files["store"]), files["prefix"])


def main() -> None:
    """Do one of both."""
    step, facts = sys.argv[1], json.loads(sys.argv[2])
    work, state = Path(facts["work"]), Path(facts["state"])
    try:
        bucket = _bucket(facts["files"], state)
        if step == "fetch":
            fetch(bucket, work, state, facts["owner"])
            return
        not_copied = send(work, bucket, state, facts["most"] * _MEGABYTE)
    except Exception as error:  # noqa: BLE001 - a disk and a store fail in many ways, and each ends as a sentence
        sys.exit(f"The job's files cannot be copied: {str(error).splitlines()[0]}")
    more = [f"And {len(not_copied) - _MOST_NAMED} more."] if len(not_copied) > _MOST_NAMED else []
    sys.stdout.buffer.write("\n".join(not_copied[:_MOST_NAMED] + more).encode(errors="replace"))


if __name__ == "__main__":
    main()
