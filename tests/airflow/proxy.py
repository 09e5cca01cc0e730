"""A proxy in front of a real service, which injects faults into requests and replies."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any

import aiohttp
from aiohttp import web

Forward = Callable[[], Awaitable[web.Response]]
Fault = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]

_HOP_BY_HOP = {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}


@dataclass
class Rule:
    """A fault and its requests: after the first `skip`, as many as `times`."""

    method: str
    path: str
    fault: Fault
    times: float
    skip: int

    def befalls(self, request: web.Request) -> bool:
        if not re.fullmatch(self.method, request.method) or not re.search(self.path, request.path) or self.times <= 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Proxy:
    """Forwards requests to a service and its storage, except those with a fault.

    Attributes:
        upstream: The service.
        url: The URL of the proxy.
        delay: Seconds by which every request is delayed, also one with a fault. A request that its client has given up
            by then never reaches the service.
        seen: Method, path and time of each request.
    """

    upstream: str
    url: str = ""
    delay: float = 0.0
    seen: list[tuple[str, str, float]] = field(default_factory=list)
    _rules: list[Rule] = field(default_factory=list)
    _storage: str = ""

    def inject(self, method: str, path: str, fault: Fault, *, times: float = 1, skip: int = 0) -> None:
        """Inject a fault into requests; earlier rules come first."""
        self._rules.append(Rule(method, path, fault, times, skip))

    def heal(self) -> None:
        """Forward all requests from now on."""
        self._rules.clear()

    def times(self, method: str, path: str) -> list[float]:
        """The times of requests, in seconds."""
        return [time for seen, where, time in self.seen if seen == method and re.search(path, where)]

    def count(self, method: str, path: str) -> int:
        """The number of requests so far."""
        return len(self.times(method, path))

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serve in a separate thread."""
        started: Future[Callable[[], object]] = Future()
        # asyncio.run also cancels the remaining tasks of the server, such as one that accepts a connection.
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name="proxy", daemon=True)
        thread.start()
        end = started.result()
        try:
            yield self
        finally:
            end()
            thread.join()

    async def _serve(self, started: Future[Callable[[], object]]) -> None:
        """Serve until the callback that `started` receives is called."""
        try:
            runner = await self._start()
        except BaseException as error:
            started.set_exception(error)
            raise
        ended = asyncio.Event()
        started.set_result(partial(asyncio.get_running_loop().call_soon_threadsafe, ended.set))
        await ended.wait()
        await runner.cleanup()

    async def _start(self) -> web.AppRunner:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path, time.monotonic()))
        body = await request.read()
        await asyncio.sleep(self.delay)
        if _is_given_up(request):
            return await lost(request, None)

        async def forward() -> web.Response:
            return await self._forward(request, body)

        rule = next((rule for rule in self._rules if rule.befalls(request)), None)
        return await rule.fault(request, forward) if rule else await forward()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        upstream = self._storage if request.path.startswith("/data") else self.upstream
        # The signature of an S3 request covers the Host that the client uses.
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            try:
                answer = await session.request(
                    request.method,
                    f"{upstream}{request.rel_url.raw_path_qs}",
                    data=BytesIO(body),
                    headers=request.headers,
                    allow_redirects=False,
                )
                content = await answer.read()
            except aiohttp.ClientError:
                return await lost(request, None)
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        if request.path.endswith("/storage") and answer.status == 200:
            content = self._behind_the_proxy(content)
        return web.Response(status=answer.status, body=content, headers=headers)

    def _behind_the_proxy(self, content: bytes) -> bytes:
        access = json.loads(content)
        self._storage = access["endpoint"]
        return json.dumps({**access, "endpoint": self.url}).encode()


async def passed(_: web.Request, forward: Forward) -> web.Response:
    """No fault."""
    return await forward()


async def lost(request: web.Request, forward: Forward | None) -> web.Response:
    """The connection breaks after the request has reached the service, if there is one."""
    if forward:
        await forward()
    if request.transport:
        request.transport.abort()
    raise web.HTTPBadGateway


async def reset(request: web.Request, _: Forward) -> web.Response:
    """The connection breaks before the service gets the request."""
    return await lost(request, None)


def answers(status: int, body: str = "", content_type: str = "application/json", **headers: str) -> Fault:
    """Another server replies."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def fault(_: web.Request, __: Forward) -> web.Response:
        return web.Response(status=status, text=body, content_type=content_type, headers=named)

    return fault


async def truncated(_: web.Request, forward: Forward) -> web.Response:
    """Half of the reply arrives."""
    answer = await forward()
    body = answer.body if isinstance(answer.body, bytes) else b""
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
    return web.Response(status=answer.status, body=body[: len(body) // 2], headers=headers)


def stalled(seconds: float) -> Fault:
    """The reply is slow."""

    async def fault(_: web.Request, forward: Forward) -> web.Response:
        await asyncio.sleep(seconds)
        return await forward()

    return fault


def late_for_those_who_wait(seconds: float) -> Fault:
    """The request is forwarded late, and only if the client still waits for the reply."""

    async def fault(request: web.Request, forward: Forward) -> web.Response:
        await asyncio.sleep(seconds)
        return await (lost(request, None) if _is_given_up(request) else forward())

    return fault


def _is_given_up(request: web.Request) -> bool:
    """Whether the client no longer waits for the reply."""
    return request.transport is None or request.transport.is_closing()


def edited(**changes: Any) -> Fault:
    """Fields of a JSON reply are replaced."""

    async def fault(_: web.Request, forward: Forward) -> web.Response:
        answer = await forward()
        body = answer.body if isinstance(answer.body, bytes) else b"{}"
        return web.json_response({**json.loads(body), **changes}, status=answer.status)

    return fault


async def forgotten(request: web.Request, _: Forward) -> web.Response:
    """The watch knows none of its jobs."""
    unknown = [{"job_id": job_id, "unknown": True} for job_id in json.loads(await request.read())["jobs"]]
    return web.Response(text="".join(json.dumps(line) + "\n" for line in unknown), content_type="application/x-ndjson")


NO_WATCH = answers(404, '{"error": {"code": "404", "message": "There is nothing at /api/v2/watch"}}')
"""A service without the watch extension."""


@dataclass
class Held:
    """A fault that delays the service's reply until the test releases it."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, _: web.Request, forward: Forward) -> web.Response:
        answer = await forward()
        self.reached.set()
        # Not in a waiting thread, which would block the end of a test that fails before the release.
        while not self.released.is_set():  # noqa: ASYNC110 - a test releases it in another thread
            await asyncio.sleep(0.02)
        return answer
