"""Whose news are taken when."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest

from airflow_training.client import turns as module
from airflow_training.client.follower import Follower
from airflow_training.client.news import News, Take
from airflow_training.client.turns import Turns
from airflow_training.exceptions import ServiceUnavailable
from airflow_training.jobs.log import LogRecord
from airflow_training.jobs.status import JobStatus
from airflow_training.task_log import LogWriter, Written

pytestmark = pytest.mark.anyio

BEGAN = datetime(2026, 11, 29, tzinfo=timezone.utc)
ENDED = JobStatus.model_validate({"job_id": "job", "status": "SUCCEEDED"})


def tell(turns: Turns, take: Take, lines: list[str]) -> Follower:
    """Have lines taken, the last that there are."""
    follower = Follower("job", 0, take, lambda: None)
    turns.tell(follower, list(News(ENDED, [LogRecord(line) for line in lines], 0, last=True).pieces(0)))
    return follower


async def all_taken(follower: Follower) -> None:
    while not follower.ended:
        await follower.changed()


async def test_lines_of_many_jobs_are_taken_off_the_loop_in_order_and_by_turns() -> None:
    taken: list[str] = []
    threads: set[int] = set()
    jobs = [[f"{job}-{line}" for line in range(250)] for job in range(5)]

    def take(news: News) -> None:
        threads.add(threading.get_ident())
        taken.extend(record.line for record in news.records)

    turns = Turns()
    await asyncio.gather(*(all_taken(tell(turns, take, lines)) for lines in jobs))

    assert [[line for line in taken if line.startswith(f"{job}-")] for job in range(5)] == jobs
    assert taken.index("4-0") < taken.index("0-60")
    assert threading.get_ident() not in threads


async def test_who_cannot_take_its_news_is_no_matter_of_the_others() -> None:
    taken: list[News] = []

    def broken(news: News) -> None:
        tried.append(news)
        raise OSError("disk full")

    tried: list[News] = []
    turns = Turns()
    failed, whole = tell(turns, broken, ["one"] * 200), tell(turns, taken.append, ["two"])

    with pytest.raises(OSError, match="disk full"):
        await all_taken(failed)
    await all_taken(whole)
    assert [record.line for news in taken for record in news.records] == ["two"]
    assert len(tried) == 1, "what comes after a piece that is missing is not taken"


async def test_who_left_takes_nothing_more() -> None:
    taken: list[News] = []
    turns = Turns()
    tell(turns, taken.append, ["one"]).leave()

    await all_taken(tell(turns, lambda news: None, ["two"]))

    assert taken == []


async def test_what_was_told_before_an_error_is_taken_and_may_be_the_end() -> None:
    taken: list[News] = []
    turns = Turns()
    ended = tell(turns, taken.append, ["one"] * 200)
    goes_on = Follower("other", 0, taken.append, lambda: None)
    turns.tell(goes_on, [News(ENDED, [LogRecord("two")], 0)])

    for follower in (ended, goes_on):
        follower.fail(ServiceUnavailable("gone", code="AT-201"))

    await all_taken(ended)
    with pytest.raises(ServiceUnavailable):
        await all_taken(goes_on)
    assert sum(len(news.records) for news in taken) == 201


class SlowAirflow:
    """Reads what is logged piece by piece out of a socket, as Airflow does, as slowly as a test wants: a fault."""

    def __init__(self) -> None:
        self.triggers, self._log = socket.socketpair()
        # As many records as Airflow's socket has, for records this small.
        self.triggers.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        self.seconds_of_a_record = 0.0
        self.records: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def log(self, level: int, event: str, **fields: Any) -> None:
        record = {"level": level, "event": event, "timestamp": fields["timestamp"].isoformat()}
        self.triggers.sendall(json.dumps(record).encode() + b"\n")

    def _read(self) -> None:
        with self._log.makefile("rb") as records:
            for record in records:
                time.sleep(self.seconds_of_a_record)
                self.records.append(json.loads(record))

    def close(self) -> None:
        """Have it read the rest."""
        self.triggers.close()
        self._thread.join(10)
        self._log.close()


@pytest.fixture
def slow_airflow() -> Iterator[SlowAirflow]:
    slow_airflow = SlowAirflow()
    yield slow_airflow
    slow_airflow.close()


async def test_too_many_lines_are_late_and_not_later_and_later_and_single_again_when_there_is_room(
    slow_airflow: SlowAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tenth of all times.
    monkeypatch.setattr(module, "INTERVAL", 0.1)
    for name in ("_SUSTAINED", "_SETTLES", "_SETTLES_EACH", "_CALM"):
        monkeypatch.setattr(module.Overload, name, getattr(module.Overload, name) / 10)
    turns = Turns(jobs=lambda: 40)
    writers = [LogWriter(slow_airflow, Written(0, {})) for _ in range(40)]
    followers = [Follower(str(job), 0, writer.write, lambda: None) for job, writer in enumerate(writers)]
    running = JobStatus.model_validate({"job_id": "job", "status": "RUNNING"})
    lines = 0

    async def all_print_until(condition: Callable[[], bool]) -> None:
        """Each job prints ten lines a second, by its clock a line a second."""
        nonlocal lines
        with anyio.fail_after(60):
            while not condition():
                at = BEGAN + timedelta(seconds=lines)
                for job, (follower, writer) in enumerate(zip(followers, writers, strict=True)):
                    turns.tell(follower, [News(running, [LogRecord(f"{job} {lines}", at, end=lines + 1)], lines + 1)])
                    if follower.window != writer.written.window:
                        writer.resume(writer.pause(follower.window).windows)
                lines += 1
                await asyncio.sleep(0.1)

    def behind() -> int:
        return sum(lines - writer.written.offset for writer in writers) // 40

    # It reads 200 a second, where 400 are written.
    slow_airflow.seconds_of_a_record = 0.005
    await all_print_until(lambda: any(writer.written.window for writer in writers))
    assert behind() > 1
    await all_print_until(lambda: behind() <= 2 * followers[0].window + 1)
    settled = lines
    await all_print_until(lambda: lines > settled + 50)
    assert behind() <= 3 * followers[0].window
    assert len(slow_airflow.records) < lines * 40 / 2

    slow_airflow.seconds_of_a_record = 0
    await all_print_until(lambda: not any(writer.written.window for writer in writers))
    before = len(slow_airflow.records)
    await all_print_until(lambda: len(slow_airflow.records) > before + 200)
    assert all("\n" not in record["event"] for record in slow_airflow.records[before + 80 :])

    for follower, writer in zip(followers, writers, strict=True):
        await follower.all_taken()
        writer.finish()
    slow_airflow.close()
    told = [line.split("Z ")[-1] for record in slow_airflow.records for line in record["event"].split("\n")]
    assert [[line for line in told if line.startswith(f"{job} ")] for job in range(40)] == [
        [f"{job} {line}" for line in range(lines)] for job in range(40)
    ]
