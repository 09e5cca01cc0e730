"""What is noted in the state folder of a job that runs on Ray: as what it was submitted, and how far it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from airflow_training.service.durable_files import read_json, write_json
from airflow_training.service.runners.run_folder import SUPERVISOR

_NOTE = "ray.json"


@dataclass(frozen=True)
class RayNote:
    """One submit of a job.

    Attributes:
        submission_id: Its id in Ray.
        access_key: The key of the S3 endpoint that was lent to it.
        attempt: The attempt of the job that it is.
        submitted: Whether Ray has taken it.
        over: Whether its command has ended.
    """

    submission_id: str
    access_key: str
    attempt: int
    submitted: bool = False
    over: bool = False

    @classmethod
    def read(cls, state: Path) -> RayNote | None:
        """The note in a state folder; None where nothing of the job is in Ray."""
        document = read_json(state / _NOTE)
        return cls(**document) if document else None

    @classmethod
    def of_this_attempt(cls, state: Path) -> RayNote | None:
        """The note of the attempt that the supervisor makes; None where nothing of it is in Ray."""
        note, supervisor = cls.read(state), read_json(state / SUPERVISOR)
        return note if note and supervisor and note.attempt == supervisor["attempt"] else None

    def write(self, state: Path) -> None:
        """Write it down."""
        write_json(state / _NOTE, asdict(self))

    def with_submitted(self) -> RayNote:
        """The same, of what Ray has taken."""
        return replace(self, submitted=True)

    def with_over(self) -> RayNote:
        """The same, of a command that has ended."""
        return replace(self, over=True)

    @staticmethod
    def forget(state: Path) -> None:
        """Nothing of the job is in Ray any more."""
        (state / _NOTE).unlink(missing_ok=True)
