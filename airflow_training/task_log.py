"""What a job's log tells, on its way into the task log.

Each line is a record of the task log, until these are more than Airflow can read. Then all lines that a job wrote in a
window of some seconds are one record. After a crash, lines are written again from the saved cursor on, and Airflow's
log page drops a record that equals its neighbor. So they must be the same records: where one ends depends on nothing
but the times and lengths of the lines and the length of the window, and another window begins with a saved cursor.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from datetime import timezone
from typing import Any, NamedTuple, Protocol

from airflow_training import stats
from airflow_training.client.news import News
from airflow_training.jobs.level import level_of
from airflow_training.jobs.log import LONGEST_LINE, LogRecord
from airflow_training.jobs.metrics import metrics_of_line, with_metrics

_LAST_LINES = 10
_LONGEST_LAST_LINE = 500
# Seconds after the end of a window until its last line has arrived. Updates are read once a second, and where windows
# are needed it may be as much later as they are long.
_ARRIVES_WITHIN = 2.0


class TaskLog(Protocol):
    """The part of Airflow's logger that is needed here."""

    def log(self, level: int, event: str, **kwargs: Any) -> Any:
        """Write a line."""


class Written(NamedTuple):
    """How far a job's log has been written.

    Attributes:
        offset: All before this byte has been.
        metrics: What this part of the log told of the model: name → value.
        window: From there on the lines of so many seconds are one record; 0 if each line is one.
    """

    offset: int
    metrics: Mapping[str, float]
    window: int = 0


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
        # Lines of a window that may not be over; lines are taken in a thread, and windows changed on the event loop.
        self._held: list[LogRecord] = []
        self._held_since = 0.0
        self._paused = False
        self._lock = threading.Lock()
        # Airflow knows by it whose log a line belongs to.
        self._context = copy_context()

    def write(self, news: News) -> float | None:
        """Write the lines that are new; to be called in a thread, by one at a time.

        Returns:
            If lines are held back, after how many seconds it is to be called again.
        """
        with self._lock:
            return self._context.run(self._write, news)

    def pause(self, window: int) -> Written:
        """Hold all lines back until `resume` is called; returns what is to be stored before another window is used."""
        with self._lock:
            self._paused = True
            return self.written._replace(window=window)

    def resume(self, window: int) -> None:
        """Go on with lines of so many seconds in a record."""
        with self._lock:
            self._paused = False
            self._held_since = time.monotonic()
            self.written = self.written._replace(window=window)

    def finish(self) -> None:
        """Write what is held back: nothing comes any more."""
        with self._lock:
            self._context.run(self._write_held, everything=True)

    def _write(self, news: News) -> float | None:
        metrics = self.written.metrics
        for record in news.records:
            if told := metrics_of_line(record.line):
                metrics = with_metrics(metrics, told)
            self.last_lines.append(record.line[:_LONGEST_LAST_LINE])
        self.written = self.written._replace(metrics=metrics)
        if news.records and not self._held:
            self._held_since = time.monotonic()
        self._held += news.records
        if news.last or not self._paused:
            self._write_held(everything=news.last)
            # Those of one window are left.
            if self._held and self._left() <= 0:
                self._write_held(everything=True)
        if self._held:
            return max(self._left(), 1)
        self._advance(news.offset)
        return None

    def _left(self) -> float:
        """Seconds until the window of the lines that are held back is over, and all its lines are there."""
        return self._held_since + 2 * self.written.window + _ARRIVES_WITHIN - time.monotonic()

    def _write_held(self, *, everything: bool) -> None:
        begin = 0
        while begin < len(self._held):
            end = self._end_of_record(begin)
            if end == len(self._held) and self.written.window and not everything:
                break
            self._write_record(self._held[begin:end])
            begin = end
        if begin:
            if written := self._held[begin - 1].time:
                stats.told(written)
            del self._held[:begin]
            self._held_since = time.monotonic()

    def _end_of_record(self, begin: int) -> int:
        """Where the record ends that begins with this line."""
        window, first = self.written.window, self._held[begin].time
        end = begin + 1
        if not window or not first:
            return end
        number, size = first.timestamp() // window, len(self._held[begin].line)
        for record in self._held[end:]:
            size += len(record.line)
            if not record.time or record.time.timestamp() // window != number or size > LONGEST_LINE:
                break
            end += 1
        return end

    def _write_record(self, records: Sequence[LogRecord]) -> None:
        first, *others = records
        text = "".join((first.line, *(f"\n{_time_of_day(record)} {record.line}" for record in others)))
        # The most severe, so that nothing is missing where somebody looks for errors.
        level = max(level_of(record.line) for record in records)
        # One call site with the same fields: the log page then drops records that a restarted triggerer repeats.
        fields = {"timestamp": first.time} if first.time else {}
        self._log.log(level, text, **fields)
        self._advance(records[-1].end)

    def _advance(self, offset: int) -> None:
        self.written = self.written._replace(offset=max(self.written.offset, offset))


def _time_of_day(record: LogRecord) -> str:
    return f"{record.time.astimezone(timezone.utc):%H:%M:%S.%f}"[:-3] + "Z" if record.time else ""
