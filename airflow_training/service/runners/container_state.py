"""What the container of a job has in the job's state folder, and its client notes there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from airflow_training.service.files import write_atomic

WORK, HOME, TEMPORARY = "data", "home", "tmp"
_FAILURE = "failure.txt"
_MADE = "container.made"


def folder_of(state: Path) -> Path:
    """All that the container of a job can write to of this machine's disk."""
    return state / "container"


def make_folder(state: Path, owner: int) -> None:
    """Make the folders that the container of a job writes to."""
    for name in (WORK, HOME, TEMPORARY):
        folder = folder_of(state) / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(folder, owner, owner)


def failure(state: Path) -> str:
    """Why the job could not run, or was ended; an empty text where all is well."""
    with contextlib.suppress(FileNotFoundError):
        return (state / _FAILURE).read_text()
    return ""


def forget_failure(state: Path) -> None:
    """Begin a new attempt."""
    (state / _FAILURE).unlink(missing_ok=True)


def note_failure(state: Path, reason: str) -> None:
    """Have `failure` say why the job could not run, or was ended."""
    write_atomic(state / _FAILURE, reason.encode())


def was_made(state: Path) -> bool:
    """Whether there may be a container."""
    return (state / _MADE).exists()


def note_made(state: Path) -> None:
    """Note that there may be a container from now on."""
    (state / _MADE).touch()
