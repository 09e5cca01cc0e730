"""The end of a job's log in memory: numbered, bounded, and no line twice."""

from __future__ import annotations

from itertools import pairwise
from uuid import uuid4

import pytest

from airflow_training.api.description import Execution, JobDescription
from airflow_training.client.client import TrainingClient
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import Upload
from airflow_training.plugins.gateway import ServiceRef
from airflow_training.plugins.log_tails import MAX_LINES, Tail, Tails

pytestmark = pytest.mark.anyio


async def run_job(client: TrainingClient, program: str) -> str:
    job = str(uuid4())
    storage = await client.storage()
    await storage.upload(f"jobs/tail-{job}", [Upload("train.py", program.encode())])
    execution = Execution(image="python:3", command="python3 train.py", completionTime="1h")
    await client.submit(job, JobDescription(name="tail", execution=execution))
    return job


async def read_to_the_end(client: TrainingClient, job: str, tail: Tail) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    after = 0
    while not tail.ended:
        await tail.read_on(client, job)
        reply = tail.reply(after)
        lines += reply["records"]
        after = reply["next"] - 1
    return lines


async def test_lines_come_once_and_in_their_order(settings: ClientSettings) -> None:
    program = "import time\nfor n in range(30):\n    print('line', n, '<b>', flush=True); time.sleep(0.05)\n"
    async with TrainingClient(settings) as client:
        job = await run_job(client, program)
        lines = await read_to_the_end(client, job, Tail())

    written = [str(line["line"]) for line in lines]
    assert [line for line in written if line.startswith("line ")] == [f"line {n} <b>" for n in range(30)]
    assert [line["n"] for line in lines] == list(range(1, len(lines) + 1))
    times = [str(line["time"]) for line in lines]
    assert all(before <= after for before, after in pairwise(times))


async def test_only_the_end_of_a_long_log_is_read_and_kept(settings: ClientSettings) -> None:
    async with TrainingClient(settings) as client:
        job = await run_job(client, "for n in range(100000): print('line', n)")
        whole = Tail()
        await read_to_the_end(client, job, whole)
        late = Tail()
        await late.read_on(client, job)

    reply = late.reply(0)
    assert late.ended
    assert reply["skipped"]
    assert len(reply["records"]) == MAX_LINES
    ends = [record["line"] for record in reply["records"] if record["line"].startswith("line ")]
    assert ends[-1] == "line 99999"
    assert all(line.removeprefix("line ").isdecimal() for line in ends), "no half of a line"
    assert late.reply(reply["next"] - 1)["records"] == []
    assert not late.reply(reply["next"] - 1)["skipped"]


async def test_a_reply_is_bounded_by_its_length_too(settings: ClientSettings) -> None:
    async with TrainingClient(settings) as client:
        job = await run_job(client, "for n in range(500): print('x' * 10000)")
        tail = Tail()
        await read_to_the_end(client, job, tail)

    assert sum(len(record["line"]) for record in tail.reply(0)["records"]) <= 1024 * 1024


async def test_another_process_gives_the_lines_the_same_numbers(settings: ClientSettings) -> None:
    async with TrainingClient(settings) as client:
        job = await run_job(client, "for n in range(3000): print('line', n)")
        first, second = Tail(), Tail()
        await read_to_the_end(client, job, first)
        await read_to_the_end(client, job, second)

    assert first.id == second.id == "0"
    assert first.reply(2500) == second.reply(2500)


def test_a_process_that_has_read_less_than_the_page_has_sends_no_line_twice() -> None:
    reply = Tail().reply(17)

    assert (reply["records"], reply["next"]) == ([], 18)


def test_tails_that_are_not_requested_are_forgotten() -> None:
    tails = Tails()
    first = tails.get(ServiceRef("c"), "job")
    assert tails.get(ServiceRef("c"), "job") is first
    for number in range(60):
        tails.get(ServiceRef("c"), str(number))

    assert tails.get(ServiceRef("c"), "job") is not first
