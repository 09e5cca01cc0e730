"""A server that answers what a test tells it to: for faults that a real service cannot be asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from airflow_training.client.settings import ClientSettings

Answer = Callable[[], web.StreamResponse]


def answer(status: int, body: str = "{}", content_type: str = "application/json", **headers: str) -> Answer:
    """An answer that can be given more than once; underscores in the names of headers are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: web.Response(status=status, text=body, content_type=content_type, headers=named)


def token(value: str = "good", lifetime: int = 3600) -> Answer:
    """An access token."""
    return answer(200, f'{{"access_token": "{value}", "token_type": "bearer", "expires_in": {lifetime}}}')


@dataclass
class FaultyService:
    """Gives its answers in order; the last one again and again.

    Attributes:
        answers: Of the job API.
        tokens: Of the token endpoint.
        requests: The requests that were made of the job API.
        token_requests: Those of the token endpoint.
    """

    answers: list[Answer] = field(default_factory=lambda: [answer(200, '{"jobs": []}')])
    tokens: list[Answer] = field(default_factory=lambda: [token()])
    requests: list[web.Request] = field(default_factory=list)
    token_requests: list[web.Request] = field(default_factory=list)

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[ClientSettings]:
        """Serve, and tell how a client reaches it."""
        application = web.Application()
        application.router.add_route("*", "/oauth/token", self._handler(self.tokens, self.token_requests))
        application.router.add_route("*", "/{path:.*}", self._handler(self.answers, self.requests))
        server = TestServer(application)
        await server.start_server(ssl=tls)
        try:
            yield ClientSettings(str(server.make_url("/")).rstrip("/"), "client", "s3cr3t", timeout=5)
        finally:
            handler = server.handler
            transports = [connection.transport for connection in handler.connections]
            await server.close()
            # TLS waits for the other side to end a connection, and one that is just being accepted is not known yet.
            await asyncio.sleep(0)
            transports += [connection.transport for connection in handler.connections]
            for transport in transports:
                if transport:
                    transport.abort()
            await asyncio.sleep(0)

    @staticmethod
    def _handler(
        answers: list[Answer], requests: list[web.Request]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            await request.read()
            requests.append(request)
            return answers[min(len(requests), len(answers)) - 1]()

        return handle
