"""What the client of a job that runs elsewhere notes for its supervisor: what it waits for, and why the job failed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from airflow_training.service.durable_files import write_atomic
from airflow_training.service.runners.run_folder import PREPARING

_FAILURE = "failure.txt"


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


def note_waiting(state: Path, what: str) -> None:
    """Have the status of the job say what keeps it from running, unless the disk is full; an empty text for nothing."""
    with contextlib.suppress(OSError):
        write_atomic(state / PREPARING, what.encode())
