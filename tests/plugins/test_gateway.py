"""The pages' requests to services: few, short, and shared by all tabs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import web

from airflow_training.api.status import JobStatus
from airflow_training.hooks.training import TrainingHook
from airflow_training.plugins import access, gateway, routes_lists
from airflow_training.plugins.access import Rights
from airflow_training.plugins.gateway import Answer, Gateway, ServiceRef, _Question, visible_to
from tests.client.faulty import FaultyService, answer, token

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[FaultyService]]

SERVICE = ServiceRef("training_test")
JOB = answer(200, '{"job_id": "j", "name": "n", "status": "RUNNING"}')
NONE_FRESH = 0.0
LONG_FRESH = 600.0


def connect(monkeypatch: pytest.MonkeyPatch, url: str, **fields: str) -> None:
    connection = {"conn_type": "training", "host": url, "login": "client", "password": "s3cr3t", **fields}
    monkeypatch.setenv("AIRFLOW_CONN_TRAINING_TEST", json.dumps(connection))


async def status(services: Gateway) -> Answer[JobStatus | None]:
    return await services.ask(SERVICE, "status", "j", lambda client: client.find("j"))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Runs a service with prepared answers, and connects to it."""

    @asynccontextmanager
    async def serving(
        *answers: Callable[[], web.StreamResponse], **kwargs: list[object]
    ) -> AsyncIterator[FaultyService]:
        faulty = FaultyService(answers=list(answers), **kwargs)  # type: ignore[arg-type]
        async with faulty.running() as settings:
            connect(monkeypatch, settings.base_url)
            yield faulty

    return serving


async def test_fifty_tabs_cost_the_service_no_more_than_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "FRESH", LONG_FRESH)
    services = Gateway()
    async with serve(JOB) as faulty:
        answers = await asyncio.gather(*(status(services) for _ in range(50)))
        answers += [await status(services) for _ in range(50)]

        assert {found.value.name for found in answers if found.value} == {"n"}
        assert len(faulty.requests) == 1
        assert len(faulty.token_requests) == 1


async def test_an_old_answer_is_requested_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "FRESH", NONE_FRESH)
    services = Gateway()
    async with serve(JOB, answer(200, '{"job_id": "j", "status": "SUCCEEDED"}')) as faulty:
        first, second = await status(services), await status(services)

        assert [found.value.state.value for found in (first, second) if found.value] == ["RUNNING", "SUCCEEDED"]
        assert len(faulty.requests) == 2


async def test_answers_from_before_the_end_of_a_job_are_requested_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "FRESH", LONG_FRESH)
    services = Gateway()
    curves = [answer(200, f'{{"curves": [], "points": {number}}}') for number in (1, 2)]
    async with serve(JOB, curves[0], answer(200, '{"job_id": "j", "status": "SUCCEEDED"}'), curves[1]) as faulty:
        for _ in range(2):
            await status(services)
            for _ in range(3):
                await services.ask(SERVICE, "metrics", "j", lambda client: client.metrics("j"))
            if len(faulty.requests) == 2:
                # As if some seconds had passed.
                known = services._answers[_Question(SERVICE, "status", "j")]
                services._answers[_Question(SERVICE, "status", "j")] = replace(known, asked_at=-1e9)

    assert [request.path.rpartition("/")[2] for request in faulty.requests] == ["j", "metrics", "j", "metrics"]


async def test_a_long_list_is_requested_no_longer_than_it_is_shown(serve: Serve) -> None:
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    jobs = [
        {"job_id": str(n), "status": "RUNNING", "submissionTime": (begin + timedelta(minutes=n)).isoformat()}
        for n in range(40_000)
    ]
    async with serve(answer(200, json.dumps({"jobs": jobs}))) as faulty:
        found = await routes_lists._all_jobs(SERVICE)
        again = await routes_lists._all_jobs(SERVICE)

    assert [job.job_id for job in found.value or []] == [str(n) for n in reversed(range(39_000, 40_000))]
    assert again is found
    assert [request.query_string for request in faulty.requests] == ["finished=1000"]


async def test_a_closed_tab_does_not_cancel_the_request_of_the_others(serve: Serve) -> None:
    services = Gateway()
    async with serve(JOB) as faulty:
        leaving, staying = (asyncio.ensure_future(status(services)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()

        assert (await staying).reachable
        assert len(faulty.requests) == 1


async def test_a_service_that_is_down_is_reported_and_the_last_answer_is_kept(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = Gateway()
    async with serve(JOB):
        known = await status(services)
    monkeypatch.setattr(gateway, "FRESH", NONE_FRESH)
    found = await status(services)

    assert not found.reachable
    assert found.message.startswith("The training service did not answer GET ")
    assert "s3cr3t" not in found.message
    assert found.value == known.value
    assert found.since == known.since


async def test_a_service_that_is_down_gets_no_request_from_each_tab(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "FRESH", LONG_FRESH)
    services = Gateway()
    async with serve(answer(503)) as faulty:
        answers = await asyncio.gather(*(status(services) for _ in range(50)))
        asked = len(faulty.requests)
        answers += [await status(services)]

        assert not any(found.reachable for found in answers)
        assert len(faulty.requests) == asked < 20


async def test_a_slow_service_does_not_delay_the_page(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "TIMEOUT", 0.5)

    async def wait(_: object) -> None:
        await asyncio.sleep(60)

    async with serve(JOB):
        begun = time.monotonic()
        found = await Gateway().ask(SERVICE, "slow", "j", wait)

    assert time.monotonic() - begun < 5
    assert found.message == "The training service did not answer within 0.5 seconds."


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (answer(200, "<html>"), "returned something that is not the job API"),
        (answer(200, '{"status": 3, "submissionTime": "soon"}'), "not the job API's JobStatus"),
        (answer(403, '{"error": {"code": "403", "message": "No scope"}}'), "No scope"),
        (answer(401), "refused a fresh token"),
    ],
)
async def test_each_fault_of_a_service_has_a_message(
    serve: Serve, reply: Callable[[], web.StreamResponse], message: str
) -> None:
    async with serve(reply):
        found = await status(Gateway())

    assert message in found.message


async def test_renewed_credentials_are_used_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "FRESH", NONE_FRESH)
    services = Gateway()
    refused = answer(401, '{"error": "invalid_client"}')
    async with serve(JOB, tokens=[refused, token()]) as faulty:
        first = await status(services)
        connect(monkeypatch, f"http://127.0.0.1:{faulty.token_requests[0].url.port}", password="renewed")
        second = await status(services)

    assert "refused the client" in first.message
    assert second.reachable


async def test_a_connection_that_was_deleted_is_noticed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "FRESH", NONE_FRESH)
    monkeypatch.setattr(gateway, "_REREAD", 0.0)
    services = Gateway()
    async with serve(JOB):
        await status(services)
        monkeypatch.delenv("AIRFLOW_CONN_TRAINING_TEST")
        found = await status(services)

    assert "There is no connection 'training_test'" in found.message


async def test_a_secrets_backend_that_fails_for_a_moment_is_not_noticed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "FRESH", NONE_FRESH)
    monkeypatch.setattr(gateway, "_REREAD", 0.0)
    services = Gateway()
    async with serve(JOB):
        await status(services)
        monkeypatch.setattr(TrainingHook, "get_connection", Mock(side_effect=OSError("vault: 503")))
        found = await status(services)

    assert found.reachable
    assert found.value


async def test_the_credentials_of_another_kind_of_connection_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = FaultyService()
    async with faulty.running() as settings:
        connect(monkeypatch, settings.base_url, conn_type="postgres")
        found = await status(Gateway())

    assert "is not of the type Training service" in found.message
    assert not faulty.token_requests


@pytest.mark.parametrize(
    "variable", ["{", "[]", "", "{}", '{"conn_type": 3}', '{"port": "x"}', "a://b:c", '{"extra": "{"}']
)
async def test_a_connection_that_cannot_be_read_is_no_training_service(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TRAINING_TEST", variable)

    assert not access._is_usable("training_test")
    found = await status(Gateway())
    assert found.code in ("AT-101", "AT-109")


async def test_settings_of_another_kind_of_connection_are_not_even_made(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "postgres.example", conn_type="postgres", extra='{"verify": "/nowhere", "timeout": "soon"}')

    assert "[AT-109]" in (await status(Gateway())).message


class Reader(Rights):
    """A user who may read a connection, or may not."""

    def __init__(self, *, reads: bool) -> None:
        self._reads = reads

    def connection(self, conn_id: str, *, edit: bool = False) -> bool:
        return self._reads


@pytest.mark.parametrize("reads", [True, False])
async def test_the_full_message_of_a_failure_is_for_readers_of_the_connection(serve: Serve, reads: bool) -> None:
    refused = answer(401, '{"error": "invalid_client"}')
    async with serve(answer(503), tokens=[refused]):
        found = await status(Gateway())
    visible = await visible_to(Reader(reads=reads), SERVICE, found)

    assert "'client'" in found.message
    assert "http://" in found.message
    assert visible.message == (
        found.message
        if reads
        else "The training service is unreachable or returned an error [AT-141]. Users with read access to the"
        " connection training_test see the details here."
    )


async def test_the_message_contains_no_login_of_a_url(serve: Serve) -> None:
    async with serve(answer(302, Location="https://user:hunter2@elsewhere.example/")):
        found = await status(Gateway())

    assert "redirects" in found.message
    assert " to https://elsewhere.example/" in found.message


async def test_a_service_without_an_extension_is_not_taken_for_one_that_is_down(
    serve: Serve,
) -> None:
    for reply in (answer(404, "<html>", "text/html"), answer(404, '{"error": {"code": "404"}}'), answer(405)):
        services = Gateway()
        async with serve(reply):
            found: list[Answer[Any]] = [
                await services.ask(SERVICE, "metrics", "j", lambda client: client.metrics("j")),
                await services.ask(SERVICE, "usage", "j", lambda client: client.usage("j")),
                await services.ask(SERVICE, "model", "j", lambda client: client.model("j")),
            ]
        assert [(one.reachable, one.value) for one in found] == [(True, None)] * 3


def test_a_client_waits_no_longer_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "http://127.0.0.1:1", extra='{"timeout": 600}')

    assert gateway.client_of(SERVICE).settings.timeout == gateway.TIMEOUT
