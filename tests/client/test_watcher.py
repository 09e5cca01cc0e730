"""One watch for all followed jobs, against a real service; faults come from a proxy in front of it."""

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
from airflow_training.client.follow.update import Update
from airflow_training.client.follow.watcher import Watcher
from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings
from airflow_training.exceptions import AuthenticationError, RequestRejected, ServiceUnavailable
from tests.airflow.proxy import NO_WATCH, Proxy, answers, lost
from tests.client.following import Written, follow
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
    received = Written()
    await follow(watcher, job_id, received)
    return received.lines


async def first_line(watcher: Watcher, job_id: str) -> asyncio.Task[list[str]]:
    """Follow a job until it has written something, and on to its end."""
    received = Written()

    async def all_lines() -> list[str]:
        await follow(watcher, job_id, received)
        return received.lines

    task = asyncio.ensure_future(all_lines())
    await received.line(COUNTED[0])
    return task


COUNT = "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.3; done"
COUNTED = [f"line {i}" for i in range(1, 7)]


async def test_one_request_at_a_time_serves_all_subscriptions(watcher: Watcher, proxy: Proxy) -> None:
    jobs = [await start(watcher, COUNT) for _ in range(4)]

    received = await asyncio.gather(*(lines(watcher, job_id) for job_id in jobs))

    assert received == [COUNTED] * 4
    assert proxy.count("GET", "/jobs") == 0
    assert proxy.count("POST", "/token") == 1
    assert proxy.count("POST", "/watch") > 1


async def test_two_subscriptions_to_the_same_job_both_get_its_lines(watcher: Watcher) -> None:
    job_id = await start(watcher, COUNT)

    received = await asyncio.gather(*(lines(watcher, job_id) for _ in range(2)))

    assert received == [COUNTED] * 2


async def test_each_subscription_to_a_waiting_job_gets_its_status(watcher: Watcher) -> None:
    # More than any machine has: each gets the machine for itself.
    runs, waits = await start(watcher, "sleep 600", cpus=100_000), await start(watcher, "true", cpus=100_000)

    async def first_status() -> JobState:
        with watcher.subscribe(waits, 0, Written()) as subscription:
            await subscription.changed()
            return subscription.latest.state if subscription.latest else JobState.UNKNOWN

    with watcher.subscribe(waits, 0, Written()) as other:
        await other.changed()
        received = await asyncio.wait_for(asyncio.gather(*(first_status() for _ in range(3))), timeout=PATIENCE)

    assert set(received) == {JobState.PENDING}
    for job_id in (waits, runs):
        await watcher.client.cancel(job_id)


async def test_a_flood_that_is_written_slowly_delays_no_other_job(watcher: Watcher) -> None:
    class Slow(Written):
        seconds = 0.02

        def __call__(self, update: Update) -> None:
            time.sleep(self.seconds)
            super().__call__(update)

    flood = Slow()
    flooding = asyncio.ensure_future(follow(watcher, await start(watcher, "seq --format 'line %0100.0f' 30000"), flood))
    await flood.line(f"line {1:0100}")

    quiet = await start(watcher, COUNT)

    assert await lines(watcher, quiet) == COUNTED
    assert not flooding.done()
    flood.seconds = 0
    await flooding
    assert flood.lines == [f"line {number:0100}" for number in range(1, 30_001)]


async def test_the_watch_is_restarted_when_its_task_dies(watcher: Watcher) -> None:
    job_id = await start(watcher, COUNT)
    rest = await first_line(watcher, job_id)

    assert watcher._task
    watcher._task.cancel()

    assert await rest == COUNTED


async def test_the_watch_survives_a_bug(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
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

    received = asyncio.gather(*(lines(watcher, job_id) for job_id in jobs))
    await asyncio.to_thread(wait_for, lambda: proxy.count("GET", "/jobs$") >= 3, "Three lists")
    assert proxy.count("GET", "/jobs/[^/]+$") == 0, "one request for all"
    (tmp_path / "go").touch()

    assert await received == [COUNTED] * 3
    assert proxy.count("POST", "/watch") == 1
    assert proxy.count("GET", "/jobs/[^/]+/logs") > 3


async def test_polling_updates_the_time_of_the_last_answer(watcher: Watcher, proxy: Proxy) -> None:
    proxy.inject("POST", "/watch", NO_WATCH, times=999)
    job_id = await start(watcher, COUNT)

    with watcher.subscribe(job_id, 0, Written()) as subscription:
        began = subscription.answered_at
        while not subscription.ended:
            await subscription.changed()

    assert subscription.answered_at > began
    assert proxy.count("GET", "/jobs$") == 0, "a single job is requested by its id"


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
        received = await asyncio.gather(*(lines(watcher, str(uuid4())) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in received] == [AuthenticationError] * 3


async def test_a_refusal_is_an_error_to_all(watcher: Watcher, proxy: Proxy) -> None:
    proxy.inject("POST", "/watch", answers(403, '{"error": {"code": "403", "message": "Not today"}}'))

    with pytest.raises(RequestRejected, match="Not today"):
        await lines(watcher, str(uuid4()))


async def test_an_unavailable_service_ends_only_subscriptions_that_have_waited_for_long(
    settings: ClientSettings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST", RetryPolicy(budget=0.1, first=0.1))
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
