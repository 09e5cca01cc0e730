"""Lines on their way into the task log."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

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

    def log(self, level: int, event: str, **kwargs: Any) -> None:
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
