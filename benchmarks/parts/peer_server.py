"""Answers status requests like Databricks, dbt Cloud and Airbyte: the run is always running.

`python -m benchmarks.parts.peer_server` prints its port. Its replies are shorter than the real ones, to the advantage
of their triggers. `GET /count` returns the number of requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STARTED = 1_760_000_000
_COUNT = web.AppKey("count", list[int])


async def databricks(request: web.Request) -> web.Response:
    """Source: Databricks' Jobs API 2.2, `GET /api/2.2/jobs/runs/get`."""
    run_id = int((await request.json())["run_id"])
    state = {"life_cycle_state": "RUNNING", "state_message": "In run", "user_cancelled_or_timedout": False}
    facts = {"job_id": 1, "run_id": run_id, "run_name": "train", "start_time": 1000 * _STARTED, "run_type": "JOB_RUN"}
    return web.json_response({**facts, "state": state, "tasks": [{"run_id": run_id, "task_key": "train"}]})


async def dbt_cloud(request: web.Request) -> web.Response:
    """Source: dbt's Administrative API v2, `GET /api/v2/accounts/{account}/runs/{run}/`; the status 3 is Running."""
    run = {"id": int(request.match_info["run"]), "account_id": 1, "status": 3, "status_humanized": "Running"}
    return web.json_response({"status": {"code": 200, "is_success": True}, "data": {**run, "in_progress": True}})


async def airbyte(request: web.Request) -> web.Response:
    """Source: Airbyte's API v1, `GET /jobs/{job}`."""
    job = {"jobId": int(request.match_info["job"]), "status": "running", "jobType": "sync"}
    return web.json_response({**job, "connectionId": "benchmark", "startTime": "2026-01-01T00:00:00Z"})


async def count(request: web.Request) -> web.Response:
    """The number of requests before this one."""
    return web.Response(text=str(request.app[_COUNT][0]))


@web.middleware
async def counting(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count each request of a trigger."""
    request.app[_COUNT][0] += request.path != "/count"
    return await handler(request)


async def main() -> None:
    """Serve forever on a free port of the loopback interface."""
    app = web.Application(middlewares=[counting])
    app[_COUNT] = [0]
    app.router.add_get("/api/{version}/jobs/runs/get", databricks)
    app.router.add_get("/api/v2/accounts/{account}/runs/{run}/", dbt_cloud)
    app.router.add_get("/jobs/{job}", airbyte)
    app.router.add_get("/count", count)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
