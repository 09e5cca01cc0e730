"""Lines on their way into task logs."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_training.jobs.log import LogRecord
from airflow_training.task_log import write_lines

pytestmark = pytest.mark.anyio

task: ContextVar[str] = ContextVar("task")


class Log:
    """Keeps what is logged, with the task whose context it is logged in."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.threads: set[int] = set()

    def log(self, level: int, event: str, **kwargs: Any) -> None:
        if event == "impossible":
            raise OSError("disk full")
        self.lines.append((task.get(), event))
        self.threads.add(threading.get_ident())


async def test_lines_of_many_jobs_are_written_off_the_loop_in_order_and_each_for_its_own_task() -> None:
    log = Log()

    async def job(name: str) -> None:
        task.set(name)
        for piece in range(3):
            await write_lines(log, [LogRecord(f"{piece}-{line}") for line in range(250)], {})

    await asyncio.gather(*(job(f"task-{number}") for number in range(5)))

    for number in range(5):
        written = [line for name, line in log.lines if name == f"task-{number}"]
        assert written == [f"{piece}-{line}" for piece in range(3) for line in range(250)]
    assert threading.get_ident() not in log.threads


async def test_what_goes_wrong_with_the_lines_of_one_job_is_no_matter_of_the_others() -> None:
    log = Log()
    task.set("task")

    broken, whole = await asyncio.gather(
        write_lines(log, [LogRecord("impossible")], {}),
        write_lines(log, [LogRecord("possible")], {}),
        return_exceptions=True,
    )

    assert isinstance(broken, OSError)
    assert whole == {}
    assert log.lines == [("task", "possible")]


async def test_metrics_are_read_from_the_lines() -> None:
    task.set("task")
    records = [LogRecord('{"metrics": {"loss": 0.5}}', datetime.now(timezone.utc)), LogRecord("and on")]

    assert await write_lines(Log(), records, {"accuracy": 0.8, "loss": 0.7}) == {"accuracy": 0.8, "loss": 0.5}
