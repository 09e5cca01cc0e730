"""A job as the scheduler and a runner see it: its key, the order to run it, and its progress."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from airflow_training.api.description import JobDescription
from airflow_training.api.resources import Resources
from airflow_training.api.status import JobState


class JobKey(NamedTuple):
    """Identifies a job: clients choose the ids, which are unique for a tenant."""

    tenant: str
    job_id: str


@dataclass(frozen=True)
class Order:
    """A job to run.

    Attributes:
        key: Its key.
        description: The description that its client sent.
        requested: The resources it requests.
        allocated: The resources it gets: less than requested if the machine has less.
        gpus: The ids of its GPUs.
    """

    key: JobKey
    description: JobDescription
    requested: Resources
    allocated: Resources
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a runner is with a job.

    Attributes:
        state: PENDING while it is prepared, RUNNING from the start of its command, and how it ended.
        message: What it waits for, or why it failed.
        container_id: What runs it, such as `process-4711`.
        started: When its command started.
        finished: When it ended.
        exit_code: The exit status of its command; negative if a signal ended it.
        log_bytes: The size of its log, after its end.
    """

    state: JobState
    message: str = ""
    container_id: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    exit_code: int | None = None
    log_bytes: int = 0
