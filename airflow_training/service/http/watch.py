"""Watching many jobs with one request, which is answered once there is news of any of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from airflow_training.api.log import NDJSON
from airflow_training.service.errors import ApiError
from airflow_training.service.http.auth import Body, Reader, ServiceParts, check_again
from airflow_training.service.http.errors import REFUSALS, refusals
from airflow_training.service.http.watching import Watch, Watching

router = APIRouter(prefix="/watch", tags=["jobs"], responses=REFUSALS)

# Logs are written by other processes, of which nothing is heard here; nor is of a client that goes away.
_INTERVAL = 0.2
# A look at very many logs takes a while: there is ten times as much between two, but no more than this.
_REST, _LONGEST_REST = 10, 1.0

# Each of ten thousand jobs may have some.
_MISTAKES = 10

_EXAMPLE = {"jobs": {"6f2c1c5e-4f0e-5d1b-9a55-3a1c2b0e7d11": {"offset": 0, "seen": ""}}, "wait": 20}
_ANSWER = """{"job_id": "6f2c1c5e-4f0e-5d1b-9a55-3a1c2b0e7d11", "seen": "0c7d4b1f9e2a", "offset": 0, "bytes": 60, \
"size": 60}
{"time": "2026-11-24T09:00:03.000000Z", "line": "epoch 1/50"}
"""


def _body_of_a_watch() -> dict[str, Any]:
    """What OpenAPI is told of a body that FastAPI does not read: it comes without a Content-Type too."""
    content = {"schema": {"$ref": "#/components/schemas/Watch"}, "example": _EXAMPLE}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


@router.post(
    "",
    response_class=Response,
    operation_id="watch_jobs",
    openapi_extra=_body_of_a_watch(),
    responses={
        200: {
            "content": {NDJSON: {"example": _ANSWER}},
            "description": "For each job with news a line, followed by as many bytes of its log as that says.",
        },
        **refusals(400, 413, 422),
    },
)
async def watch(request: Request, client: Reader, body: Body, service: ServiceParts) -> Response:
    """Watch jobs: the reply comes once there is news of any of them, or without any after `wait` seconds.

    New lines alone are kept back for `linger` seconds from the beginning of the request, unless they are those of a job
    that has ended, or so many that there are replies to be filled.

    News are a status with another tag than the client has seen, and whole NDJSON records of the log behind the offset
    that the client names. `size` is that of the whole log: where the status is final, the log is complete up to there.
    A job that the tenant does not have is `unknown`, which is always news.

    A reply has at most 256 KiB of records, and 64 KiB of one job. They are divided between the jobs that have news;
    where there is not a record for each, the first in the request have theirs.
    """
    wanted = await run_in_threadpool(_read, body)
    watching = Watching(service.statuses, service.data.job_states(client.tenant), client.tenant, wanted.jobs)
    changes, clock = service.jobs.changes, asyncio.get_running_loop().time
    begin, looks = clock(), 0
    end, lingered = begin + wanted.wait, begin + min(wanted.linger, wanted.wait)
    with changes.heard(watching.keys) as changed:
        while True:
            changed.clear()
            look = clock()
            news = await run_in_threadpool(watching.look)
            looks += 1
            kept_back = news.content and not news.urgent
            left = (lingered if kept_back else end) - clock()
            if (news.content and not kept_back) or not wanted.jobs or left <= 0 or changes.closed:
                break
            if await request.is_disconnected():
                break
            pause = max(_INTERVAL, min(_REST * (clock() - look), _LONGEST_REST))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), left if kept_back else min(left, pause))
    if looks > 1:
        # What was taken away while the request waited is away.
        await run_in_threadpool(check_again, request, service)
    return Response(news.content, media_type=NDJSON, headers={"Cache-Control": "no-store"})


def _read(body: bytes) -> Watch:
    try:
        return Watch.model_validate_json(body)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        listed = [f"{_place(mistake['loc'])}: {mistake['msg']}" for mistake in mistakes[:_MISTAKES]]
        if len(mistakes) > _MISTAKES:
            listed.append(f"and {len(mistakes) - _MISTAKES} mistakes more")
        raise ApiError(422, f"The request is not valid: {'; '.join(listed)}.", code="AT-633") from None


def _place(parts: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:64] for part in parts) or "the body"
