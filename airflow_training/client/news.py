"""What those who follow a job are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from airflow_training.jobs.log import LogRecord
from airflow_training.jobs.status import JobStatus

INTERVAL = 1.0
"""Seconds after which a line is told at the latest: the freshness that trainingClient promised."""

LINES_AT_ONCE = 50
"""Lines of a job that are told before other jobs have their turn."""


@dataclass(frozen=True)
class News:
    """What became known of a job.

    Attributes:
        status: Where the job stands.
        records: The log lines that are new.
        offset: The byte of the log from which following can be resumed: all before it was delivered.
        size: Bytes that the news took in the log.
        last: Whether the job has ended, and its log with it.
    """

    status: JobStatus
    records: list[LogRecord]
    offset: int
    size: int = 0
    last: bool = False

    def pieces(self, begin: int) -> Iterator[News]:
        """Divide them into pieces of `LINES_AT_ONCE`.

        Args:
            begin: The byte from which following can be resumed until the last piece is delivered.
        """
        last = 0
        while len(self.records) - last > LINES_AT_ONCE:
            yield News(self.status, self.records[last : last + LINES_AT_ONCE], begin)
            last += LINES_AT_ONCE
        yield replace(self, records=self.records[last:]) if last else self


Take = Callable[[News], None]
"""Takes the news of a job, piece by piece in their order; called in a thread."""
