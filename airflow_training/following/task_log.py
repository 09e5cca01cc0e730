"""The lines of a job in a task log: their records and levels, and which lines an earlier triggerer wrote already.

Each line is a record of the task log, with the time at which the job wrote it. Late lines are one record, in which each
line after the first starts with its time. A trigger that starts again continues from the last stored cursor and skips
the lines in earlier logs of the same try, by their times: this package's service gives each line a later time. If it is
not certain that a line is there, it is written: twice is better than not at all.
"""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from airflow_training.api.log import LONGEST_LINE, LogRecord
from airflow_training.api.metrics import merge_metrics, metrics_of_line
from airflow_training.client.follow.update import Update, length_with_time
from airflow_training.following import stats

LOGGER = "airflow_training.job"
"""The logger of a job's lines: it distinguishes them from the trigger's own messages in the same log."""

_LAST_LINES = 10
_LONGEST_LAST_LINE = 500
# Bytes of an earlier log that are read at its start and at its end. A record has at most 16 KiB of text.
_PART = 256 * 1024
_DAY = timedelta(days=1)


class TaskLog(Protocol):
    """The part of Airflow's logger that is needed here."""

    def log(self, level: int, event: str, **kwargs: Any) -> Any:
        """Write a line."""


class Written(Struct, frozen=True, gc=False):
    """How far a job's log has been written.

    Attributes:
        offset: All bytes before this one have been written.
        metrics: The metrics in this part of the log: name → value.
    """

    offset: int
    metrics: Mapping[str, float]


class Span(NamedTuple):
    """The lines of a job in one log, without a gap; times in whole milliseconds.

    Attributes:
        first: The time of the first line.
        last: The time of the last line.
        at_last: The number of lines with that time.
    """

    first: datetime
    last: datetime
    at_last: int


class LogWriter:
    """Writes the lines of a job into a task log, each with the time at which the job wrote it.

    Args:
        log: The task log.
        written: What an earlier process wrote.
        shown: Lines in other logs of the same try: they are not written again.

    Attributes:
        written: What has been written.
        last_lines: The last lines, truncated.
        has_times: Whether lines have times.
    """

    # A triggerer has one for each of many jobs.
    __slots__ = ("_context", "_log", "_shown", "_time", "last_lines", "written")

    def __init__(self, log: TaskLog, written: Written, shown: Iterable[Span] = ()) -> None:
        self.written = written
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._log = log
        self._shown = {span: span.at_last for span in shown}
        self._time: datetime | None = None
        # Airflow finds the log of a line by it.
        self._context = copy_context()

    def write(self, update: Update) -> None:
        """Write the lines of an update; called in a thread, one call at a time."""
        self._context.run(self._write, update)

    def _write(self, update: Update) -> None:
        metrics = self.written.metrics
        for line in update.records:
            # The last number of an unended line may be incomplete, and the line comes again.
            if not line.unended:
                self.last_lines.append(line.line[:_LONGEST_LAST_LINE])
                if found := metrics_of_line(line.line):
                    metrics = merge_metrics(metrics, found)
        lines = [line for line in map(self._with_time, update.records) if not self._is_shown(line)]
        for record in _records(lines) if update.batched else ([line] for line in lines):
            fields = {"timestamp": record[0].time} if record[0].time else {}
            # The most severe level, so that a search for errors finds the record. One call site with the same fields:
            # the log page then drops a line that it finds in two logs.
            self._log.log(max(level_of(line.line) for line in record), _text_of(record), **fields)
        self.written = Written(update.offset, metrics)
        if lines and (time := lines[-1].time):
            stats.log_line(time)

    @property
    def has_times(self) -> bool:
        return self._time is not None

    def _with_time(self, line: LogRecord) -> LogRecord:
        """Give a line without a time, such as the note about omitted lines, the time of the line before it."""
        if not line.time:
            return replace(line, time=self._time)
        if self._time and line.time < self._time:
            # After a clock was set back, times do not show which lines are there.
            self._shown.clear()
        self._time = line.time
        return line

    def _is_shown(self, line: LogRecord) -> bool:
        if not self._shown or not line.time:
            return False
        time = _milliseconds(line.time)
        if all(time > span.last for span in self._shown):
            # All later lines are new.
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
    """The times of the lines of each complete record."""
    for entry in part.split(b"\n"):
        # Skip an incomplete entry, or one in another format.
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(entry)
            if record["logger"] == LOGGER:
                first = datetime.fromisoformat(record["timestamp"].replace("Z", "+00:00"))
                times = [_milliseconds(first.astimezone(timezone.utc))]
                for line in record["event"].split("\n")[1:]:
                    time = datetime.fromisoformat(f"{times[-1]:%Y-%m-%d}T{line[:12]}+00:00")
                    # After midnight, unless a clock was set back a little.
                    times.append(time + _DAY if times[-1] - time > _DAY / 2 else time)
                yield times


def _records(lines: Sequence[LogRecord]) -> Iterator[list[LogRecord]]:
    """Divide lines into records that Airflow accepts without delay."""
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


# A time, the name of a program or module, brackets: the usual formats have these before the level.
_BEFORE = r"^(?:[\d\[(][\d:.,TZ/+\- \])]*)?(?:[\w.\-]+ +- +)?[\[(<|\- ]*"
_WORD = re.compile(_BEFORE + r"(WARN(?:ING)?|ERR(?:OR)?|CRITICAL|FATAL)\b[\])>|: ,\-]")
# glog and absl: `E0000 00:00:1714.1 123 file.cc:1] …`; TensorFlow: `2026-11-24 10:00:00.123456: E tensorflow/…`.
_LETTER = re.compile(r"^(?:([WEF])\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ([WEF]) )")
_LEVELS = {"W": logging.WARNING, "E": logging.ERROR, "C": logging.CRITICAL, "F": logging.CRITICAL}


def level_of(line: str) -> int:
    """Read the level in a line, as a level of Python's `logging`.

    A line without a level, or with a lower one, is INFO: by default a task log shows no level below INFO, and no line
    must be lost.

    >>> level_of("2026-11-24 10:00:00,123 WARNING root: low memory")
    30
    >>> level_of("ERRORS: 0")
    20
    """
    found = _WORD.match(line) or _LETTER.match(line)
    if not found:
        return logging.INFO
    return _LEVELS[next(group for group in found.groups() if group)[0]]
