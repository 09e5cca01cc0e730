"""The lines of a job in a task log: how they are written, and which an earlier triggerer has written already.

Each line is a record of the task log, with the time at which the job wrote it; lines that come late are one record, in
which each line after the first begins with its time. A trigger that starts again goes on from the last saved cursor,
and leaves out what is in the logs of those before it, by its times: the service of this package gives each line a later
one. Where it is not certain that a line is there, it is written: twice is better than not at all.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from airflow_training.api.log import LONGEST_LINE, LogRecord
from airflow_training.api.metrics import metrics_of_line, with_metrics
from airflow_training.client.follow.update import News, length_with_time
from airflow_training.following import stats
from airflow_training.following.log_level import level_of

LOGGER = "airflow_training.job"
"""The logger of a job's lines, which distinguishes them from the trigger's own messages in the same log."""

_LAST_LINES = 10
_LONGEST_LAST_LINE = 500
# Bytes of an earlier log that are read at its beginning and at its end. A record has at most 16 KiB of text.
_PART = 256 * 1024
_DAY = timedelta(days=1)


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


class Span(NamedTuple):
    """The lines of a job that one log holds, without a gap; times in whole milliseconds.

    Attributes:
        first: The time of the first.
        last: The time of the last.
        at_last: How many have that time.
    """

    first: datetime
    last: datetime
    at_last: int


class LogWriter:
    """Writes the lines of a job into a task log, each with the time at which the job wrote it.

    Args:
        log: The task log.
        written: What was written in an earlier life.
        shown: Lines that other logs of the same try hold: they are not written again.

    Attributes:
        written: What has been written.
        last_lines: The last lines, as far as they are not too long.
        has_times: Whether lines have times.
    """

    def __init__(self, log: TaskLog, written: Written, shown: Iterable[Span] = ()) -> None:
        self.written = written
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._log = log
        self._shown = {span: span.at_last for span in shown}
        self._time: datetime | None = None
        # Airflow knows by it whose log a line belongs to.
        self._context = copy_context()

    def write(self, news: News) -> None:
        """Write the lines that are new; to be called in a thread, by one at a time."""
        self._context.run(self._write, news)

    def _write(self, news: News) -> None:
        metrics = self.written.metrics
        for line in news.records:
            # Of a line that has not ended, a number may be cut, and the line comes again.
            if not line.unended:
                self.last_lines.append(line.line[:_LONGEST_LAST_LINE])
                if found := metrics_of_line(line.line):
                    metrics = with_metrics(metrics, found)
        lines = [line for line in map(self._with_time, news.records) if not self._is_shown(line)]
        for record in _records(lines) if news.together else ([line] for line in lines):
            fields = {"timestamp": record[0].time} if record[0].time else {}
            # The most severe level, so that nothing is missing where somebody looks for errors. One call site with the
            # same fields: the log page then drops a line that it finds in two logs.
            self._log.log(max(level_of(line.line) for line in record), _text_of(record), **fields)
        self.written = Written(news.offset, metrics)
        if lines and (time := lines[-1].time):
            stats.told(time)

    @property
    def has_times(self) -> bool:
        return self._time is not None

    def _with_time(self, line: LogRecord) -> LogRecord:
        """Give a line without a time, such as a note that lines are left out, that of the line before it."""
        if not line.time:
            return replace(line, time=self._time)
        if self._time and line.time < self._time:
            # A clock that was set back says nothing of what is there.
            self._shown.clear()
        self._time = line.time
        return line

    def _is_shown(self, line: LogRecord) -> bool:
        if not self._shown or not line.time:
            return False
        time = _milliseconds(line.time)
        if all(time > span.last for span in self._shown):
            # What comes from now on is new.
            self._shown.clear()
        for span, left in self._shown.items():
            if span.first <= time < span.last:
                return True
            if time == span.last and left:
                self._shown[span] = left - 1
                return True
        return False


def span_of(log: Path) -> Span | None:
    """Find the lines of a job in the log of a trigger, one JSON object a line; None if there are none."""
    with log.open("rb") as file:
        beginning = file.read(_PART)
        file.seek(max(0, log.stat().st_size - _PART))
        end = file.read()
    times = [time for record in _times_of(end) for time in record]
    if not times:
        return None
    last = max(times)
    return Span(next(_times_of(beginning), times)[0], last, times.count(last))


def _times_of(part: bytes) -> Iterator[list[datetime]]:
    """The times of the lines of each record that is whole."""
    for entry in part.split(b"\n"):
        # One that is cut, or of somebody else.
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(entry)
            if record["logger"] == LOGGER:
                first = datetime.fromisoformat(record["timestamp"].replace("Z", "+00:00"))
                times = [_milliseconds(first.astimezone(timezone.utc))]
                for line in record["event"].split("\n")[1:]:
                    time = datetime.fromisoformat(f"{times[-1]:%Y-%m-%d}T{line[:12]}+00:00")
                    # After midnight; a clock that was set back a little is none of that.
                    times.append(time + _DAY if times[-1] - time > _DAY / 2 else time)
                yield times


def _records(lines: Sequence[LogRecord]) -> Iterator[list[LogRecord]]:
    """Divide lines into records that Airflow takes without delay."""
    record: list[LogRecord] = []
    length = 0
    for line in lines:
        length += length_with_time(line)
        if record and length > LONGEST_LINE:
            yield record
            record, length = [], length_with_time(line)
        record.append(line)
    if record:
        yield record


def _text_of(record: Sequence[LogRecord]) -> str:
    first, *others = record
    return "\n".join((first.line, *(f"{_time_of_day(line)}{line.line}" for line in others)))


def _time_of_day(line: LogRecord) -> str:
    return f"{line.time.astimezone(timezone.utc):%H:%M:%S.%f}"[:-3] + "Z " if line.time else ""


def _milliseconds(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
