"""Files that other processes read while they are written, and that outlive a crash."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import airflow_training

PACKAGE_PARENT = Path(airflow_training.__file__).parents[1]
"""Where this package is imported from: its programs import it from there as well, installed or not."""

_LARGEST_JSON = 4 * 1024 * 1024


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that is there completely or not at all, after a power failure too; only its owner may read it."""
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
    """Write a JSON document as `write_atomic` does."""
    write_atomic(path, json.dumps(document).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON document; None where there is none."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return document


def open_checked(path: Path | str, flags: int, *, folder: int | None = None) -> int:
    """Open what a job may have replaced by a link or a pipe: the first is not followed, the second not waited for.

    Args:
        path: What to open.
        flags: Those of open(2).
        folder: The open folder that it lies in, where the path begins there.

    Raises:
        OSError: It is not there, or neither a file nor a folder.
    """
    descriptor = os.open(path, os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o600, dir_fd=folder)
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode) and not stat.S_ISDIR(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))
    return descriptor


@contextmanager
def opened(path: Path | str, flags: int, *, folder: int | None = None) -> Iterator[int]:
    """Open as `open_checked` does, and close it afterwards."""
    descriptor = open_checked(path, flags, folder=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_start(path: Path, most: int) -> bytes:
    """Read a file as `opened` opens it, its first bytes.

    Raises:
        OSError: It is not there, or no file.
    """
    with opened(path, os.O_RDONLY) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return file.read(most)


def read_damaged_json(path: Path) -> Any:
    """Read what may be a JSON document, in a file that a job may have changed; None where it is none."""
    try:
        return json.loads(read_start(path, _LARGEST_JSON))
    except (OSError, ValueError, RecursionError):
        return None


def append(file: FileIO, content: bytes) -> None:
    """Write all of it: where the disk is nearly full, the first part is written without an error."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
