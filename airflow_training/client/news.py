"""What those who follow a job are told."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_training.jobs.log import LogRecord
from airflow_training.jobs.status import JobStatus

INTERVAL = 1.0
"""Seconds after which a line is told at the latest: the freshness that trainingClient promised."""


@dataclass(frozen=True)
class News:
    """What became known of a job.

    Attributes:
        status: Where the job stands.
        records: The log lines that are new.
        offset: The byte of the log from which following can be resumed: all before it was delivered.
    """

    status: JobStatus
    records: list[LogRecord]
    offset: int
