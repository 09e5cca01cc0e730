"""Files that other processes read while they are written, and that outlive a crash."""

from __future__ import annotations

import json
import os
from io import FileIO
from pathlib import Path
from typing import Any

import airflow_training

PACKAGE_PARENT = Path(airflow_training.__file__).parents[1]
"""Where this package is imported from: its programs import it from there as well, installed or not."""


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


def append(file: FileIO, content: bytes) -> None:
    """Write all of it: where the disk is nearly full, the first part is written without an error."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
