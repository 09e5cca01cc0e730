"""One watch for all who follow jobs, against a real service; faults come from a proxy in front of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_training.api.description import JobDescription
from airflow_training.api.status import JobState
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow import watcher as module
from airflow_training.client.follow.update import News
from airflow_training.client.follow.watcher import Watcher
from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings
from airflow_training.exceptions import AuthenticationError, RequestRejected, ServiceUnavailable
from tests.airflow.proxy import NO_WATCH, Proxy, answers, lost
from tests.client.following import Told, follow
from tests.patience import PATIENCE, wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture
def proxy(settings: ClientSettings) -> Iterator[Proxy]:
    with Proxy(settings.base_url).running() as proxy:
        yield proxy


@asynccontextmanager
async def watching(
    settings: ClientSettings, *, renewed: ClientSettings | None = None, patience: float = 60
) -> AsyncIterator[Watcher]:
    async def connect() -> TrainingClient:
        return TrainingClient(renewed or settings)

    async with Watcher(TrainingClient(settings), connect, patience=patience) as watcher:
        yield watcher


@pytest.fixture
async def watcher(settings: ClientSettings, proxy: Proxy) -> AsyncIterator[Watcher]:
    """A watcher that reaches the service through the proxy."""
    async with watching(replace(settings, base_url=proxy.url)) as watcher:
        yield watcher


async def start(watcher: Watcher, command: str, cpus: int = 1) -> str:
    job_id = str(uuid4())
    execution = {"command": command, "completionTime": 60, "resources": {"cpus": cpus, "memory": 100}}
    await watcher.client.submit(job_id, JobDescription.from_wire({"name": "watched", "execution": execution}))
    return job_id


async def lines(watcher: Watcher, job_id: str) -> list[str]:
    """Follow a job to its end and return what it wrote."""
    told = Told()
    await follow(watcher, job_id, told)
    return told.lines


async def first_line(watcher: Watcher, job_id: str) -> asyncio.Task[list[str]]:
    """Follow a job until it has written something, and on to its end."""
    told = Told()

    async def all_lines() -> list[str]:
        await follow(watcher, job_id, told)
        return told.lines

    task = asyncio.ensure_future(all_lines())
    await told.line(COUNTED[0])
    return task


COUNT = "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.3; done"
COUNTED = [f"line {i}" for i in range(1, 7)]


async def test_one_request_at_a_time_tells_all_who_follow_jobs(watcher: Watcher, proxy: Proxy) -> None:
    jobs = [await start(watcher, COUNT) for _ in range(4)]

    told = await asyncio.gather(*(lines(watcher, job_id) for job_id in jobs))

    assert told == [COUNTED] * 4
    assert proxy.count("GET", "/jobs") == 0
    assert proxy.count("POST", "/token") == 1
    assert proxy.count("POST", "/watch") > 1


async def test_two_who_follow_the_same_job_are_both_told(watcher: Watcher) -> None:
    job_id = await start(watcher, COUNT)

    told = await asyncio.gather(*(lines(watcher, job_id) for _ in range(2)))

    assert told == [COUNTED] * 2


async def test_who_follows_a_waiting_job_that_others_follow_is_told_of_it(watcher: Watcher) -> None:
    # More than any machine has: each gets the machine for itself.
    runs, waits = await start(watcher, "sleep 600", cpus=100_000), await start(watcher, "true", cpus=100_000)

    async def first_status() -> JobState:
        with watcher.follower(waits, 0, Told()) as follower:
            await follower.changed()
            return follower.latest.state if follower.latest else JobState.UNKNOWN

    with watcher.follower(waits, 0, Told()) as other:
        await other.changed()
        told = await asyncio.wait_for(asyncio.gather(*(first_status() for _ in range(3))), timeout=PATIENCE)

    assert set(told) == {JobState.PENDING}
    for job_id in (waits, runs):
        await watcher.client.cancel(job_id)


async def test_who_is_slow_to_take_the_news_of_a_flood_holds_up_nobody(watcher: Watcher) -> None:
    class Slow(Told):
        seconds = 0.02

        def __call__(self, news: News) -> None:
            time.sleep(self.seconds)
            super().__call__(news)

    flood = Slow()
    flooding = asyncio.ensure_future(follow(watcher, await start(watcher, "seq --format 'line %0100.0f' 30000"), flood))
    await flood.line(f"line {1:0100}")

    quiet = await start(watcher, COUNT)

    assert await lines(watcher, quiet) == COUNTED
    assert not flooding.done()
    flood.seconds = 0
    await flooding
    assert flood.lines == [f"line {number:0100}" for number in range(1, 30_001)]


async def test_nobody_notices_that_the_watch_died(watcher: Watcher) -> None:
    job_id = await start(watcher, COUNT)
    rest = await first_line(watcher, job_id)

    assert watcher._task
    watcher._task.cancel()

    assert await rest == COUNTED


async def test_nobody_notices_a_mistake_of_ours(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = await start(watcher, COUNT)
    rest = await first_line(watcher, job_id)
    broken = asyncio.Event()

    def ask(*_: object, **__: object) -> None:
        monkeypatch.undo()
        broken.set()
        raise ZeroDivisionError

    monkeypatch.setattr(watcher.client, "watch", ask)

    assert await rest == COUNTED
    assert broken.is_set()


async def test_a_service_without_the_extension_is_asked_once_for_it_and_polled(
    watcher: Watcher, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.inject("POST", "/watch", NO_WATCH, times=999)
    jobs = [await start(watcher, f"{COUNT}; until test -e '{tmp_path}/go'; do sleep 0.1; done") for _ in range(3)]

    told = asyncio.gather(*(lines(watcher, job_id) for job_id in jobs))
    await asyncio.to_thread(wait_for, lambda: proxy.count("GET", "/jobs$") >= 3, "Three lists")
    assert proxy.count("GET", "/jobs/[^/]+$") == 0, "one request tells of all"
    (tmp_path / "go").touch()

    assert await told == [COUNTED] * 3
    assert proxy.count("POST", "/watch") == 1
    assert proxy.count("GET", "/jobs/[^/]+/logs") > 3


async def test_who_is_polled_for_knows_that_the_service_answers(watcher: Watcher, proxy: Proxy) -> None:
    proxy.inject("POST", "/watch", NO_WATCH, times=999)
    job_id = await start(watcher, COUNT)

    with watcher.follower(job_id, 0, Told()) as follower:
        began = follower.last_heard
        while not follower.ended:
            await follower.changed()

    assert follower.last_heard > began
    assert proxy.count("GET", "/jobs$") == 0, "one that is followed alone is asked for alone"


async def test_credentials_that_were_renewed_are_used(settings: ClientSettings) -> None:
    wrong = replace(settings, client_secret="wr0ng")
    async with watching(settings) as right:
        job_id = await start(right, COUNT)

    async with watching(wrong, renewed=settings) as watcher:
        assert await lines(watcher, job_id) == COUNTED


async def test_a_secrets_backend_that_fails_meanwhile_ends_no_following(
    settings: ClientSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(settings, client_secret="wr0ng")
    async with watching(settings) as right:
        job_id = await start(right, COUNT)
    failures = iter(range(2))

    async with watching(wrong, renewed=settings) as watcher:
        renew = watcher._connect

        async def connect() -> TrainingClient:
            if next(failures, None) is not None:
                raise ServiceUnavailable("The connection could not be read.", code="AT-110")
            return await renew()

        monkeypatch.setattr(watcher, "_connect", connect)
        assert await lines(watcher, job_id) == COUNTED


async def test_credentials_that_are_refused_are_an_error_to_all(settings: ClientSettings) -> None:
    async with watching(replace(settings, client_secret="wr0ng")) as watcher:
        told = await asyncio.gather(*(lines(watcher, str(uuid4())) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in told] == [AuthenticationError] * 3


async def test_a_refusal_is_an_error_to_all(watcher: Watcher, proxy: Proxy) -> None:
    proxy.inject("POST", "/watch", answers(403, '{"error": {"code": "403", "message": "Not today"}}'))

    with pytest.raises(RequestRejected, match="Not today"):
        await lines(watcher, str(uuid4()))


async def test_a_service_that_is_away_ends_the_following_of_those_only_who_have_waited_for_long(
    settings: ClientSettings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_POLICY", RetryPolicy(budget=0.1, first=0.1))
    async with watching(replace(settings, base_url=proxy.url), patience=2) as watcher:
        job_id = await start(watcher, COUNT)
        proxy.inject("POST", "/watch", lost, times=9999)
        impatient = asyncio.ensure_future(lines(watcher, job_id))
        with pytest.raises(ServiceUnavailable):
            await impatient
        patient = asyncio.ensure_future(lines(watcher, job_id))
        await asyncio.wait({patient}, timeout=0.5)
        proxy.heal()

        assert await patient == COUNTED
