"""What a job's log tells, on its way into the task log."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextvars import copy_context
from typing import Any, NamedTuple, Protocol

from airflow_training import stats
from airflow_training.client.news import News
from airflow_training.jobs.level import level_of
from airflow_training.jobs.metrics import metrics_of_line, with_metrics

_LAST_LINES = 10
_LONGEST_LAST_LINE = 500


class TaskLog(Protocol):
    """The part of Airflow's logger that is needed here."""

    def log(self, level: int, event: str, **kwargs: Any) -> Any:
        """Write a line."""


class Written(NamedTuple):
    """How far a job's log has been written.

    Attributes:
        offset: All before this byte has been.
        metrics: What this part of the log told of the model: name → value.
    """

    offset: int
    metrics: Mapping[str, float]


class LogWriter:
    """Writes the lines of a job into a task log, each with the time at which the job wrote it.

    Args:
        log: The task log.
        written: What was written in an earlier life.

    Attributes:
        written: What has been written.
        last_lines: The last lines, as far as they are not too long.
    """

    def __init__(self, log: TaskLog, written: Written) -> None:
        self.written = written
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._log = log
        # Airflow knows by it whose log a line belongs to.
        self._context = copy_context()

    def write(self, news: News) -> None:
        """Write the lines that are new; to be called in a thread, by one at a time."""
        self._context.run(self._write, news)

    def _write(self, news: News) -> None:
        metrics = self.written.metrics
        for record in news.records:
            if told := metrics_of_line(record.line):
                metrics = with_metrics(metrics, told)
            # One call site with the same fields: the log page then drops lines that a restarted triggerer repeats.
            fields = {"timestamp": record.time} if record.time else {}
            self._log.log(level_of(record.line), record.line, **fields)
            self.last_lines.append(record.line[:_LONGEST_LAST_LINE])
        self.written = Written(news.offset, metrics)
        if news.records and (time := news.records[-1].time):
            stats.told(time)
