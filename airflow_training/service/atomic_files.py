"""Files that other processes read meanwhile or lock, that survive a crash, or that a job may have tampered with."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import airflow_training

PACKAGE_PARENT = Path(airflow_training.__file__).parents[1]
"""The folder that this package is imported from, for the path of its subprocesses."""

_LARGEST_JSON = 4 * 1024 * 1024


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, even after a power failure; only its owner can read it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document atomically, see `write_atomic`."""
    write_atomic(path, json.dumps(document).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON document; None if there is no file."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return document


@contextmanager
def try_lock_file(path: Path) -> Iterator[bool]:
    """Lock a file, which is created if need be; yields False if it is locked already."""
    free = False
    with path.open("w") as lock:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        yield free


def open_untrusted(path: Path | str, flags: int, *, folder: int | None = None) -> int:
    """Open a file or folder that a job may have replaced: links are not followed, pipes do not block.

    Args:
        path: The file or folder.
        flags: The flags of open(2).
        folder: The descriptor of the folder that the path is relative to.

    Raises:
        OSError: It does not exist, or is neither a file nor a folder.
    """
    descriptor = os.open(path, os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o600, dir_fd=folder)
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode) and not stat.S_ISDIR(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))
    return descriptor


@contextmanager
def opened_untrusted(path: Path | str, flags: int, *, folder: int | None = None) -> Iterator[int]:
    """Open with `open_untrusted`, and close it afterwards."""
    descriptor = open_untrusted(path, flags, folder=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_untrusted(path: Path, most: int) -> bytes:
    """Read the first bytes of a file that a job may have replaced.

    Raises:
        OSError: It does not exist, or is not a file.
    """
    with opened_untrusted(path, os.O_RDONLY) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return file.read(most)


def read_untrusted_json(path: Path) -> Any:
    """Read JSON from a file that a job may have replaced; None if it is not JSON."""
    try:
        return json.loads(read_untrusted(path, _LARGEST_JSON))
    except (OSError, ValueError, RecursionError):
        return None


def write_all(file: FileIO, content: bytes) -> None:
    """Write all bytes: on a nearly full disk, a single write writes some of them without an error."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
