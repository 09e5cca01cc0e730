"""What those who follow a job are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from airflow_training.api.log import LogRecord
from airflow_training.api.status import JobStatus

INTERVAL = 1.0
"""Seconds after which a line is told at the latest: the freshness that trainingClient promised."""

LINES_AT_ONCE = 50
"""Lines of a job that are told before other jobs have their turn."""

LATE = 5.0
"""Seconds that a job's updates may be queued before its lines are batched into one log record."""


@dataclass(frozen=True)
class News:
    """What became known of a job.

    Attributes:
        status: Where the job stands.
        records: The log lines that are new.
        offset: The byte of the log from which following can be resumed: all before it was delivered.
        size: Bytes that the news took in the log.
        last: Whether the job has ended, and its log with it.
        together: Whether the lines are to be batched into one log record, since they are late.
    """

    status: JobStatus
    records: list[LogRecord]
    offset: int
    size: int = 0
    last: bool = False
    together: bool = False

    @property
    def length(self) -> int:
        """Characters of the lines if they are written together, each with its time."""
        return sum(map(length_with_time, self.records))

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


def length_with_time(record: LogRecord) -> int:
    """Characters of a line with its time of day before it."""
    return len(record.line) + len("\n00:00:00.000Z ")


Take = Callable[[News], None]
"""Takes the news of a job, piece by piece in their order; called in a thread."""
