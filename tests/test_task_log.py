"""Lines on their way into the task log."""

from __future__ import annotations

import logging
import threading
import time
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from itertools import accumulate, cycle, groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_training.client.log_tail import LogTail
from airflow_training.client.news import News
from airflow_training.jobs.log import LogRecord
from airflow_training.jobs.status import JobStatus
from airflow_training.task_log import LogWriter, Written

RUNNING = JobStatus.model_validate({"job_id": "job", "status": "RUNNING"})
TIME = datetime(2026, 11, 26, tzinfo=timezone.utc)

task: ContextVar[str] = ContextVar("task")


class Log:
    """Keeps what is logged, with the task whose context it is logged in."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self.levels: list[int] = []

    def log(self, level: int, event: str, **kwargs: Any) -> None:
        self.levels.append(level)
        self.lines.append((task.get(), event, kwargs))


def test_lines_are_written_for_their_task_with_their_time_whatever_thread_writes_them() -> None:
    log = Log()
    task.set("train")
    writer = LogWriter(log, Written(0, {}))
    news = News(RUNNING, [LogRecord("one", TIME), LogRecord("two")], 100)

    thread = threading.Thread(target=writer.write, args=[news])
    thread.start()
    thread.join()

    assert log.lines == [("train", "one", {"timestamp": TIME}), ("train", "two", {})]
    assert list(writer.last_lines) == ["one", "two"]
    assert writer.written == Written(100, {})


def test_metrics_are_read_from_the_lines() -> None:
    task.set("train")
    writer = LogWriter(Log(), Written(50, {"accuracy": 0.8, "loss": 0.7}))

    writer.write(News(RUNNING, [LogRecord('{"metrics": {"loss": 0.5}}', TIME), LogRecord("and on")], 100))

    assert writer.written == Written(100, {"accuracy": 0.8, "loss": 0.5})


def log_of(lines: list[tuple[float, str]]) -> bytes:
    """What the service gives of a log, by the seconds at which its lines were written."""
    return b"".join(LogRecord(text, TIME + timedelta(seconds=seconds)).to_ndjson() for seconds, text in lines)


def shown(*logs: Log) -> list[tuple[datetime, str]]:
    """The lines that Airflow's log page shows: records in the order of their times, without one like the one before."""
    records = sorted((fields["timestamp"], text) for log in logs for _, text, fields in log.lines)
    lines = []
    for at, text in (record for record, _ in groupby(records)):
        first, *others = text.split("\n")
        lines.append((at, first))
        for other in others:
            time_of_day, line = other.split(" ", 1)
            lines.append((datetime.fromisoformat(f"{TIME.date()}T{time_of_day[:-1]}+00:00"), line))
    return lines


def test_lines_of_a_window_are_one_record_with_the_time_of_each_and_the_level_of_the_most_severe() -> None:
    task.set("train")
    log = Log()
    writer = LogWriter(log, Written(0, {}, ((0, 4),)))
    lines = ["one", "ERROR: two", "three", '{"metrics": {"loss": 0.5}}']
    records = [LogRecord(line, TIME + timedelta(seconds=1.5 * number)) for number, line in enumerate(lines)]

    assert writer.write(News(RUNNING, records, 100))
    assert log.lines == [("train", "one\n00:00:01.500Z ERROR: two\n00:00:03.000Z three", {"timestamp": TIME})]
    writer.write(News(RUNNING, [], 100, last=True))

    assert [event for _, event, _ in log.lines[1:]] == [lines[3]]
    assert log.levels == [logging.ERROR, logging.INFO]
    assert writer.written == Written(100, {"loss": 0.5}, ((0, 4),))
    assert list(writer.last_lines) == lines


def test_the_last_lines_are_written_though_no_other_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    task.set("train")
    log = Log()
    writer = LogWriter(log, Written(0, {}, ((0, 4),)))

    again = writer.write(News(RUNNING, [LogRecord("one", TIME, end=10)], 10))
    assert again
    assert not log.lines
    now += again
    assert writer.write(News(RUNNING, [], 0)) is None

    assert [event for _, event, _ in log.lines] == ["one"]
    assert writer.written.offset == 10


def test_lines_that_may_have_been_shown_before_are_those_from_before_the_triggerer_began() -> None:
    task.set("train")
    writer = LogWriter(Log(), Written(0, {}), again=True)
    now = datetime.now(timezone.utc)

    writer.write(News(RUNNING, [LogRecord("before", now - timedelta(seconds=9), end=10)], 10))
    assert writer.again
    writer.write(News(RUNNING, [LogRecord("after", now + timedelta(seconds=9), end=20)], 20))
    assert not writer.again


LINES = st.lists(st.tuples(st.integers(0, 3_000), st.text("ab", min_size=1, max_size=9)), min_size=8, max_size=30)


@given(
    steps=LINES,
    cuts=st.lists(st.integers(30, 200), min_size=1),
    other_cuts=st.lists(st.integers(30, 200), min_size=1),
    windows=st.lists(st.sampled_from([0, 4, 8, None]), min_size=1, max_size=5),
    crash=st.integers(3, 30),
    from_the_beginning=st.booleans(),
)
def test_no_line_is_lost_or_shown_twice_after_a_crash_however_lines_came_and_were_put_together(
    *,
    steps: list[tuple[int, str]],
    cuts: list[int],
    other_cuts: list[int],
    windows: list[int | None],
    crash: int,
    from_the_beginning: bool,
) -> None:
    task.set("train")
    times = accumulate(step for step, _ in steps)
    lines = [
        (time / 1000, f"{number:02} {text}") for number, (time, (_, text)) in enumerate(zip(times, steps, strict=True))
    ]
    content = log_of(lines)

    def live(log: Log, saved: Written, cuts: list[int], crash: int | None) -> Written:
        writer, tail = LogWriter(log, saved, again=crash is None), LogTail(saved.offset)
        for number, cut in enumerate(cycle(cuts)):
            if number == crash:
                return saved
            # Saved after some of the updates, with another window or not.
            window = windows[number % len(windows)]
            if window is not None and crash is not None:
                saved = writer.pause(window)
                writer.resume(saved.windows)
            end = tail.read_until + cut
            last = end >= len(content) and crash is None
            records = tail.take(content[tail.read_until : end], ndjson=True, size=None, more=False, last=last)
            for piece in News(RUNNING, records, tail.offset, last=last).pieces(tail.offset if not records else 0):
                writer.write(piece)
            if last:
                break
        return saved

    before, after = Log(), Log()
    saved = live(before, Written(0, {}, ((0, windows[0]),) if windows[0] else ()), cuts, crash)
    if from_the_beginning:
        saved = saved._replace(offset=0, metrics={})
    live(after, saved, other_cuts, None)

    assert shown(before, after) == [(TIME + timedelta(seconds=time), line) for time, line in lines]
