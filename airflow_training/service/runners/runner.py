"""What the scheduler asks of a runner, whatever it runs jobs on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from airflow_training.api.description import JobDescription
from airflow_training.api.status import JobState
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.scheduling.resources import Amount


class JobKey(NamedTuple):
    """What tells one job from every other: the ids are chosen by clients, each for its tenant."""

    tenant: str
    job_id: str


@dataclass(frozen=True)
class Order:
    """A job that is to be run.

    Attributes:
        key: Which one.
        description: What its client sent.
        asked: What it asks for.
        granted: What it gets, which is less where it asks for more than there is.
        gpus: The ids of its graphics processors.
    """

    key: JobKey
    description: JobDescription
    asked: Amount
    granted: Amount
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a runner is with a job.

    Attributes:
        state: PENDING while it is prepared, RUNNING once its command runs, and how it ended.
        container_id: What holds the job, in the runner's own words.
        log_bytes: The size of its log, once it has ended.
    """

    state: JobState
    message: str = ""
    container_id: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    exit_code: int | None = None
    log_bytes: int = 0


class Runner(Protocol):
    """Runs jobs in a way that survives the service.

    The scheduler calls it from one thread. No method waits for a job.
    """

    def objection(self, description: JobDescription) -> InvalidDescription | None:
        """Tell why a job cannot run here; None where it can."""

    def start(self, order: Order) -> None:
        """Start a job; safe to repeat, after a restart of the service too: no job is ever run twice."""

    def look(self, key: JobKey) -> Progress:
        """Tell how far a job is. A job is not said to have ended before its log is complete."""

    def cancel(self, key: JobKey) -> None:
        """Ask for the end of a job; safe to repeat."""
