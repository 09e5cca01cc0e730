"""Why a job that a client program runs elsewhere cannot run, or was ended: the client's note for the supervisor."""

from __future__ import annotations

import contextlib
from pathlib import Path

from airflow_training.service.files import write_atomic

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
