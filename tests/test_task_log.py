"""The lines of a job in the task log."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_training.api.log import LONGEST_LINE, LogRecord
from airflow_training.api.status import JobStatus
from airflow_training.client.follow.update import Update
from airflow_training.following.task_log import LOGGER, LogWriter, Span, Written, span_of

RUNNING = JobStatus.model_validate({"job_id": "job", "status": "RUNNING"})
TIME = datetime(2026, 11, 26, tzinfo=timezone.utc)

task: ContextVar[str] = ContextVar("task")


class Log:
    """Records lines, with the task of their context."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self.levels: list[int] = []

    def log(self, level: int, event: str, **kwargs: Any) -> None:
        self.lines.append((task.get(), event, kwargs))
        self.levels.append(level)


def test_lines_are_written_for_their_task_with_their_time_whatever_thread_writes_them() -> None:
    log = Log()
    task.set("train")
    writer = LogWriter(log, Written(0, {}))
    update = Update(RUNNING, [LogRecord("one", TIME), LogRecord("two")], 100)

    thread = threading.Thread(target=writer.write, args=[update])
    thread.start()
    thread.join()

    assert log.lines == [("train", "one", {"timestamp": TIME}), ("train", "two", {"timestamp": TIME})]
    assert list(writer.last_lines) == ["one", "two"]
    assert writer.written == Written(100, {})


def test_an_unended_line_is_shown_and_has_no_metrics() -> None:
    log = Log()
    task.set("train")
    writer = LogWriter(log, Written(0, {}))
    cut, whole = "9/9 1s/step - loss: 0.1", "9/9 1s/step - loss: 0.123"

    writer.write(Update(RUNNING, [LogRecord(cut, TIME, unended=True)], 100))
    assert writer.written == Written(100, {})
    writer.write(Update(RUNNING, [LogRecord(whole, TIME)], 200))

    assert [line for _, line, _ in log.lines] == [cut, whole]
    assert list(writer.last_lines) == [whole]
    assert writer.written == Written(200, {"loss": 0.123})


def test_metrics_are_read_from_the_lines() -> None:
    task.set("train")
    writer = LogWriter(Log(), Written(50, {"accuracy": 0.8, "loss": 0.7}))

    writer.write(Update(RUNNING, [LogRecord('{"metrics": {"loss": 0.5}}', TIME), LogRecord("and on")], 100))

    assert writer.written == Written(100, {"accuracy": 0.8, "loss": 0.5})


def test_lines_of_a_batch_are_one_record_with_the_time_and_the_severest_level() -> None:
    log = Log()
    task.set("train")
    lines = [
        LogRecord("one", TIME),
        LogRecord("WARNING: two", TIME + timedelta(seconds=1.5)),
        LogRecord("three, of no time"),
    ]

    LogWriter(log, Written(0, {})).write(Update(RUNNING, lines, 100, batched=True))

    ((_, text, fields),) = log.lines
    assert text == "one\n00:00:01.500Z WARNING: two\n00:00:01.500Z three, of no time"
    assert fields == {"timestamp": TIME}
    assert log.levels == [logging.WARNING]


def test_a_record_of_many_lines_is_no_longer_than_a_line_may_be() -> None:
    log = Log()
    task.set("train")
    lines = [LogRecord("x" * length, TIME) for length in [0] * 5000 + [LONGEST_LINE, 1, LONGEST_LINE]]

    LogWriter(log, Written(0, {})).write(Update(RUNNING, lines, 100, batched=True))

    written = [text for _, text, _ in log.lines]
    assert max(map(len, written)) <= LONGEST_LINE
    assert sum(text.count("\n") + 1 for text in written) == len(lines)


class TriggerLog:
    """A trigger's log as Airflow writes it: one JSON object per record."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w")
        self._write({"event": "trigger starting", "timestamp": "2026-11-30T00:00:00.1Z"})
        self._write({"event": "Canceling …", "timestamp": "2026-11-30T00:00:00.2Z", "logger": "airflow_training.x"})

    def log(self, level: int, event: str, **kwargs: Any) -> None:
        time = kwargs["timestamp"].isoformat().replace("+00:00", "Z")
        self._write({"event": event, "timestamp": time, "logger": LOGGER})

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        self._file.close()

    def cut(self, size: int) -> None:
        """Truncate it, as if its writer had been killed."""
        with self.path.open("ab") as file:
            file.truncate(size)

    def lines(self) -> list[str]:
        lines = []
        for entry in self.path.read_bytes().split(b"\n"):
            try:
                record = json.loads(entry)
            except ValueError:
                continue  # Truncated: the page does not show it either.
            if record.get("logger") == LOGGER:
                first, *others = record["event"].split("\n")
                lines += [first, *(line[14:] for line in others)]
        return lines


@pytest.mark.parametrize("seed", range(20))
def test_what_a_killed_triggerer_wrote_is_not_written_again_and_nothing_is_missing(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret depends on it
    task.set("train")
    # Around midnight; in a flood, many lines are in the same millisecond.
    time = TIME - timedelta(seconds=2)
    steps = [timedelta(microseconds=10), timedelta(milliseconds=1), timedelta(seconds=1)]
    lines = []
    for number in range(chance.randrange(1, 400)):
        time += chance.choice(steps)
        lines.append(LogRecord(f"line {number} \u2028\x0c …", time))

    def write(log: TriggerLog, begin: int, end: int, shown: Sequence[Span]) -> None:
        writer = LogWriter(log, Written(0, {}), shown)
        while begin < end:
            number = chance.randrange(1, 40)
            update = Update(RUNNING, lines[begin : min(begin + number, end)], 0, batched=chance.random() < 0.5)
            writer.write(update)
            begin += number

    logs: list[TriggerLog] = []
    shown_lines = 0
    for life in range(4):
        shown = [span for log in logs if (span := span_of(log.path))]
        # From the cursor, which may be older than the last lines.
        begin = chance.randrange(0, shown_lines + 1)
        log = TriggerLog(tmp_path / f"{life}.log")
        write(log, begin, len(lines) if life == 3 else chance.randrange(begin, len(lines) + 1), shown)
        logs.append(log)
        log.close()
        if life < 3:
            size = log.path.stat().st_size
            log.cut(chance.randrange(size // 2, size + 1))
        shown_lines = len([line for log in logs for line in log.lines()])

    assert [line for log in logs for line in log.lines()] == [line.line for line in lines]


def test_the_lines_of_a_service_whose_clock_is_set_back_are_not_left_out(tmp_path: Path) -> None:
    task.set("train")
    seconds = [timedelta(seconds=number) for number in range(10)]
    earlier, later = TriggerLog(tmp_path / "1.log"), TriggerLog(tmp_path / "2.log")
    before = [LogRecord(f"{number}", TIME + second) for number, second in enumerate(seconds[:6])]
    LogWriter(earlier, Written(0, {})).write(Update(RUNNING, before, 0))
    earlier.close()

    (span,) = filter(None, [span_of(earlier.path)])
    after = [LogRecord("new", TIME + seconds[7]), LogRecord("set back", TIME + seconds[2])]
    LogWriter(later, Written(0, {}), [span]).write(Update(RUNNING, [*before[3:], *after], 0))
    later.close()

    assert later.lines() == ["new", "set back"]


def test_times_that_go_back_within_a_record_hide_no_line_of_the_next_day(tmp_path: Path) -> None:
    task.set("train")
    earlier, later = TriggerLog(tmp_path / "1.log"), TriggerLog(tmp_path / "2.log")
    hour = TIME + timedelta(hours=12)
    before = [LogRecord(f"{second}", hour + timedelta(seconds=second)) for second in (0, 5, 2, 3)]
    LogWriter(earlier, Written(0, {})).write(Update(RUNNING, before, 0, batched=True))
    earlier.close()

    span = span_of(earlier.path)
    assert span == Span(hour, hour + timedelta(seconds=5), 1)
    after = [LogRecord(f"new {minute}", hour + timedelta(minutes=minute)) for minute in (1, 2)]
    LogWriter(later, Written(0, {}), [span]).write(Update(RUNNING, after, 0))
    later.close()

    assert later.lines() == ["new 1", "new 2"]


def test_a_log_without_lines_of_a_job_has_no_span(tmp_path: Path) -> None:
    log = TriggerLog(tmp_path / "1.log")
    log.close()

    assert span_of(log.path) is None
