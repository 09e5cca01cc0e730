"""An update of a followed job: its status and new lines of its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from airflow_training.api.log import LogRecord
from airflow_training.api.status import JobStatus

INTERVAL = 1.0
"""Seconds after which a line is delivered at the latest: as fresh as with trainingClient."""

MAX_LINES = 50
"""Lines of a job that are delivered before the next job's turn."""

LATE = 5.0
"""Seconds that updates of a job may be queued before its lines are batched into one log record."""


class Update(Struct, frozen=True, gc=False):
    """An update of a job.

    Attributes:
        status: The job's status.
        records: The new log lines.
        offset: The byte of the log at which following can be resumed: everything before it is delivered.
        size: Bytes of the log in this update.
        last: Whether the job has ended, and its log with it.
        batched: Whether the lines are late and therefore written as one log record.
    """

    status: JobStatus
    records: Sequence[LogRecord]
    offset: int
    size: int = 0
    last: bool = False
    batched: bool = False

    @property
    def length(self) -> int:
        """Characters of the lines as one log record, each with its time."""
        return sum(map(length_with_time, self.records))

    def pieces(self, begin: int) -> Iterator[Update]:
        """Divide the update into pieces of `MAX_LINES` lines.

        Args:
            begin: The byte at which following can be resumed until the last piece is delivered.
        """
        last = 0
        while len(self.records) - last > MAX_LINES:
            yield Update(self.status, self.records[last : last + MAX_LINES], begin)
            last += MAX_LINES
        yield replace(self, records=self.records[last:]) if last else self


def length_with_time(record: LogRecord) -> int:
    """Characters of a line with its time of day before it."""
    return len(record.line) + len("\n00:00:00.000Z ")


Write = Callable[[Update], None]
"""Writes the updates of a job, in their order; called in a thread."""
