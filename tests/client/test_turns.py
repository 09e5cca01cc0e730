"""Whose news are taken when."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_training.api.log import LONGEST_LINE, LogRecord
from airflow_training.api.status import JobStatus
from airflow_training.client.follow.delivery import Turns
from airflow_training.client.follow.subscription import Follower
from airflow_training.client.follow.update import News, Take
from airflow_training.exceptions import ServiceUnavailable

pytestmark = pytest.mark.anyio

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


async def test_lines_of_a_job_that_has_waited_for_long_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[News] = []
    lines = [f"line {number}" for number in range(5000)]

    await all_taken(tell(Turns(), taken.append, lines))
    assert not any(news.together for news in taken)

    alone = len(taken)
    taken.clear()
    monkeypatch.setattr("airflow_training.client.follow.subscription.LATE", 0)
    await all_taken(tell(Turns(), taken.append, lines))

    assert all(news.together for news in taken)
    assert [record.line for news in taken for record in news.records] == lines
    # As many at once as are one record, so that others have their turn.
    assert len(taken) < alone / 5
    assert max(news.length for news in taken[:-1]) < 2 * LONGEST_LINE


async def test_there_is_room_before_lines_are_taken() -> None:
    seen: list[str] = []

    await all_taken(tell(Turns(lambda: seen.append("room")), lambda news: seen.append("taken"), ["one"]))

    assert seen == ["room", "taken"]
