"""What a job's log tells, on its way into the task log.

Each line is a record of the task log, until these are more than Airflow can read. Then all lines that a job wrote in a
window of some seconds are one record. After a crash, lines are written again from the saved cursor on, and Airflow's
log page drops a record that equals its neighbor. So they must be the same records: where one ends depends on nothing
but the times and lengths of the lines and the length of the window, and another window begins with a saved cursor. The
cursor keeps where each began, for a triggerer that writes the log again from an earlier byte, and no other begins until
lines are written that were not there before.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from datetime import datetime, timezone
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
# Changes of the window that a cursor keeps, the newest: some days of them, and no more than 2 KB.
_CHANGES = 100


class TaskLog(Protocol):
    """The part of Airflow's logger that is needed here."""

    def log(self, level: int, event: str, **kwargs: Any) -> Any:
        """Write a line."""


class Written(NamedTuple):
    """How far a job's log has been written.

    Attributes:
        offset: All before this byte has been.
        metrics: What this part of the log told of the model: name → value.
        windows: The lines of how many seconds are one record, 0 if each line is one: the byte from which on → seconds,
            in the order of the bytes.
    """

    offset: int
    metrics: Mapping[str, float]
    windows: tuple[tuple[int, int], ...] = ()

    @property
    def window(self) -> int:
        """The seconds of the last window."""
        return self.windows[-1][1] if self.windows else 0


class LogWriter:
    """Writes the lines of a job into a task log, each with the time at which the job wrote it.

    Args:
        log: The task log.
        written: What was written in an earlier life.
        again: Whether there was an earlier life, which may have written more than that.

    Attributes:
        written: What has been written.
        again: Whether the next line may have been written before, in an earlier life.
        last_lines: The last lines, as far as they are not too long.
    """

    def __init__(self, log: TaskLog, written: Written, *, again: bool = False) -> None:
        self.written = written
        self.again = again
        self._began = datetime.now(timezone.utc)
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
            others = tuple(change for change in self.written.windows if change[0] < self.written.offset)
            return self.written._replace(windows=(*others, (self.written.offset, window))[-_CHANGES:])

    def resume(self, windows: tuple[tuple[int, int], ...]) -> None:
        """Go on with the windows that have been stored."""
        with self._lock:
            self._paused = False
            self._held_since = time.monotonic()
            self.written = self.written._replace(windows=windows)

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
        window, _ = self._window()
        return self._held_since + 2 * window + _ARRIVES_WITHIN - time.monotonic()

    def _window(self) -> tuple[int, float]:
        """The window of the next line, and the byte with which another begins."""
        windows = self.written.windows
        following = bisect_right(windows, self.written.offset, key=lambda change: change[0])
        return (
            windows[following - 1][1] if following else 0,
            windows[following][0] if following < len(windows) else math.inf,
        )

    def _write_held(self, *, everything: bool) -> None:
        begin = 0
        while begin < len(self._held):
            end, whole = self._end_of_record(begin)
            if not whole and not everything:
                break
            self._write_record(self._held[begin:end])
            begin = end
        if begin:
            if written := self._held[begin - 1].time:
                stats.told(written)
            del self._held[:begin]
            self._held_since = time.monotonic()

    def _end_of_record(self, begin: int) -> tuple[int, bool]:
        """Where the record ends that begins with this line, and whether it is known that it ends there."""
        (window, until), first = self._window(), self._held[begin]
        end = begin + 1
        if not window or not first.time:
            return end, True
        number, size, read = first.time.timestamp() // window, len(first.line), first.end
        for record in self._held[end:]:
            size += len(record.line)
            in_window = record.time and record.time.timestamp() // window == number
            if read >= until or not in_window or size > LONGEST_LINE:
                return end, True
            end, read = end + 1, record.end
        return end, read >= until

    def _write_record(self, records: Sequence[LogRecord]) -> None:
        first, *others = records
        text = "".join((first.line, *(f"\n{_time_of_day(record)} {record.line}" for record in others)))
        # The most severe, so that nothing is missing where somebody looks for errors.
        level = max(level_of(record.line) for record in records)
        # One call site with the same fields: the log page then drops records that a restarted triggerer repeats.
        fields = {"timestamp": first.time} if first.time else {}
        self._log.log(level, text, **fields)
        if (last := records[-1].time) and last > self._began:
            self.again = False
        self._advance(records[-1].end)

    def _advance(self, offset: int) -> None:
        self.written = self.written._replace(offset=max(self.written.offset, offset))


def _time_of_day(record: LogRecord) -> str:
    return f"{record.time.astimezone(timezone.utc):%H:%M:%S.%f}"[:-3] + "Z" if record.time else ""
