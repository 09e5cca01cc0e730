"""The job API against a real service: submit, follow, cancel, and the files of a job."""

from __future__ import annotations

import io
import os
import re
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, cast
from uuid import uuid4

import pytest

from airflow_training.api.description import JobDescription
from airflow_training.api.naming import job_folder
from airflow_training.api.status import JobState
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.log_tail import MAX_BACKLOG
from airflow_training.client.follow.watcher import Watcher
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import Upload
from airflow_training.exceptions import JobLost, RequestRejected, StorageError
from tests.client.following import Written, follow, to_the_end

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(settings: ClientSettings) -> AsyncIterator[TrainingClient]:
    async with TrainingClient(settings) as client:
        yield client


@pytest.fixture
async def watcher(settings: ClientSettings) -> AsyncIterator[Watcher]:
    async def connect() -> TrainingClient:
        return TrainingClient(settings)

    async with Watcher(await connect(), connect, patience=30) as watcher:
        yield watcher


def job(command: str) -> JobDescription:
    return JobDescription.from_wire({"name": "test", "execution": {"command": command, "completionTime": 60}})


async def test_a_job_is_followed_to_its_end_with_every_line_and_its_time(
    client: TrainingClient, watcher: Watcher
) -> None:
    began = datetime.now(timezone.utc)
    job_id = str(uuid4())
    submitted = await client.submit(job_id, job("for i in 1 2 3 4; do echo line $i; sleep 0.7; done; printf end"))

    updates = await to_the_end(watcher, job_id)

    assert submitted.state in {JobState.PENDING, JobState.RUNNING}
    assert updates[-1].status.state is JobState.SUCCEEDED
    written = [record for update in updates for record in update.records]
    lines = [record for record in written if record.line.startswith(("line", "end"))]
    assert [record.line for record in lines] == ["line 1", "line 2", "line 3", "line 4", "end"]
    times = [record.time for record in lines if record.time]
    assert len(times) == 5
    assert began < times[0] < times[1] < times[2] < times[3] <= times[4]
    assert sum(1 for update in updates if update.records) > 1, "lines come while the job runs"


async def test_following_is_resumed_at_a_byte_without_losing_or_repeating_a_line(
    client: TrainingClient, watcher: Watcher
) -> None:
    job_id = str(uuid4())
    await client.submit(job_id, job("for i in 1 2 3 4 5; do echo line $i; sleep 0.7; done"))

    written = Written()
    with watcher.subscribe(job_id, 0, written):
        await written.line("line 2")
    await follow(watcher, job_id, written, written.updates[-1].offset)

    assert written.lines == [f"line {i}" for i in range(1, 6)]


async def test_of_a_log_that_is_too_much_at_once_the_beginning_and_the_end_are_delivered(
    client: TrainingClient, watcher: Watcher
) -> None:
    job_id = str(uuid4())
    await client.submit(job_id, job("seq --format 'line %060.0f' 200000"))  # 13 MB
    await to_the_end(watcher, job_id)

    written = [record for update in await to_the_end(watcher, job_id) for record in update.records]

    (cut,) = [number for number, record in enumerate(written) if record.line.startswith("[about ")]
    assert re.fullmatch(r"\[about [\d,]+ bytes of the log are skipped here: .*\]", written[cut].line)
    numbers = [[int(r.line[5:]) for r in part if r.line.startswith("line")] for part in (written[:cut], written[cut:])]
    assert numbers[0] == list(range(1, len(numbers[0]) + 1))
    assert numbers[1] == list(range(200001 - len(numbers[1]), 200001))
    assert all(numbers)
    assert sum(len(record.line) for record in written) < MAX_BACKLOG * 1.5
    times = [record.time for record in written if record.time]
    assert times == sorted(times)


async def test_a_job_that_fails_says_why(client: TrainingClient, watcher: Watcher) -> None:
    job_id = str(uuid4())
    await client.submit(job_id, job("echo about to fail; exit 3"))

    last = (await to_the_end(watcher, job_id))[-1]

    assert last.status.state is JobState.FAILED
    assert "3" in last.status.message


async def test_a_repeated_submit_makes_no_second_job(client: TrainingClient) -> None:
    job_id = str(uuid4())
    await client.submit(job_id, job("true"))
    await client.submit(job_id, job("true"))

    assert [status.job_id for status in await client.jobs()].count(job_id) == 1
    with pytest.raises(RequestRejected, match="409"):
        await client.submit(job_id, job("false").model_copy(update={"name": "other"}))


async def test_a_canceled_job_ends(client: TrainingClient, watcher: Watcher) -> None:
    job_id = str(uuid4())
    await client.submit(job_id, job("sleep 600"))
    await client.cancel(job_id)

    assert (await to_the_end(watcher, job_id))[-1].status.state is JobState.CANCELED
    await client.cancel(job_id)
    await client.cancel(str(uuid4()))


async def test_an_unknown_job_is_lost(watcher: Watcher) -> None:
    with pytest.raises(JobLost, match="does not know the job"):
        await to_the_end(watcher, str(uuid4()))


async def test_a_job_finds_its_files_and_leaves_its_own(
    client: TrainingClient, watcher: Watcher, tmp_path: Path
) -> None:
    job_id = str(uuid4())
    folder = job_folder("test", job_id)
    (tmp_path / "data.csv").write_text("1,2,3")
    storage = await client.storage()
    arrived: list[tuple[str, int]] = []

    await storage.upload(
        folder,
        [
            Upload("train.py", b"print(open('in put/d\xc3\xa4ta.csv').read())"),
            Upload("in put/däta.csv", lambda: cast("BinaryIO", (tmp_path / "data.csv").open("rb"))),
        ],
        lambda name, size, sent: arrived.append((name, size)),
    )
    await client.submit(job_id, job("python3 train.py && mkdir -p model/1 && echo pb > model/1/saved_model.pb"))
    updates = await to_the_end(watcher, job_id)

    assert sorted(arrived) == [("in put/däta.csv", 5), ("train.py", 38)]
    assert "1,2,3" in [record.line for update in updates for record in update.records]
    assert f"{folder}/model/1/saved_model.pb" in await storage.keys(folder)
    content = b"".join([piece async for piece in storage.read(f"{folder}/model/1/saved_model.pb")])
    assert content == b"pb\n"


async def test_a_large_file_is_streamed_and_arrives_whole(client: TrainingClient) -> None:
    storage = await client.storage()
    folder = job_folder("test", str(uuid4()))
    size = 40 * 1024 * 1024 + 7

    await storage.upload(folder, [Upload("large.bin", lambda: io.BytesIO(b"x" * size))])

    arrived = 0
    async for piece in storage.read(f"{folder}/large.bin"):
        arrived += len(piece)
    assert arrived == size


class Trickle(io.BytesIO):
    """A source that cannot go back and gives less than it is asked for, as HTTP does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 3 * 1024 * 1024 + 1))

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")


async def test_a_file_arrives_whole_from_a_source_that_gives_little_at_a_time(client: TrainingClient) -> None:
    storage = await client.storage()
    folder = job_folder("test", str(uuid4()))
    content = os.urandom(20 * 1024 * 1024 + 7)
    files = [Upload("large.bin", lambda: Trickle(content)), Upload("small.bin", lambda: Trickle(content[:4_000_000]))]
    written: list[tuple[str, int, bool]] = []

    for _ in range(2):
        await storage.upload(folder, files, lambda name, size, sent: written.append((name, size, sent)))

    assert b"".join([piece async for piece in storage.read(f"{folder}/large.bin")]) == content
    # What cannot be read twice is sent again, unless it can be held in memory.
    assert sorted(written) == [
        ("large.bin", len(content), True),
        ("large.bin", len(content), True),
        ("small.bin", 4_000_000, False),
        ("small.bin", 4_000_000, True),
    ]


async def test_a_file_that_cannot_be_read_to_its_end_is_not_there(client: TrainingClient) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 10_000_000:
                raise OSError("the disk is gone")
            return super().read(size)

    storage = await client.storage()
    folder = job_folder("test", str(uuid4()))

    with pytest.raises(StorageError, match=r"large\.bin could not be uploaded, since it cannot be read: the disk is"):
        await storage.upload(folder, [Upload("large.bin", lambda: Broken(bytes(30_000_000)))])

    assert await storage.keys(folder) == []


async def test_many_small_files_arrive_each_once(client: TrainingClient) -> None:
    storage = await client.storage()
    folder = job_folder("test", str(uuid4()))
    files = [Upload(f"{number}.csv", str(number).encode()) for number in range(50)]
    written: list[str] = []

    await storage.upload(folder, files, lambda name, *_: written.append(name))

    assert sorted(written) == sorted(file.name for file in files)
    assert sorted(await storage.keys(folder)) == sorted(f"{folder}/{file.name}" for file in files)


async def test_an_upload_that_was_cut_off_sends_only_what_is_missing(client: TrainingClient) -> None:
    storage = await client.storage()
    folder = job_folder("test", str(uuid4()))
    large = Upload("large.bin", lambda: io.BytesIO(b"x" * (20 * 1024 * 1024)))
    changed = Upload("changed.csv", b"after ")
    await storage.upload(folder, [Upload("small.csv", b"1,2,3"), large, Upload("changed.csv", b"before")])
    sent: dict[str, bool] = {}

    await storage.upload(
        folder,
        [Upload("small.csv", b"1,2,3"), large, changed, Upload("new.csv", b"")],
        lambda name, size, was_sent: sent.update({name: was_sent}),
    )

    assert sent == {"small.csv": False, "large.bin": False, "changed.csv": True, "new.csv": True}
    content = b"".join([piece async for piece in storage.read(f"{folder}/changed.csv")])
    assert content == b"after "
