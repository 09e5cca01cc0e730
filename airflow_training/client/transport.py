"""One HTTP request to the job API: authenticated, retried by a policy, with a readable error."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http.client import responses
from typing import Any, TypeVar

import aiohttp
from tenacity import AsyncRetrying

from airflow_training.client.auth import TokenSource, describe
from airflow_training.client.retry import AGAIN, REQUEST, TOKEN_REFUSED, RetryPolicy, TryAgain, retry_after
from airflow_training.client.settings import ClientSettings
from airflow_training.exceptions import (
    AuthenticationError,
    InvalidReply,
    RequestRejected,
    ServiceUnavailable,
)

T = TypeVar("T")

# Far more than any reply of the API.
_LONGEST_REPLY = 16 * 1024 * 1024
_LONGEST_QUOTE = 300
_CODE = re.compile(r" \[AT-\d{3}\]$")


@dataclass(frozen=True)
class Reply:
    """A reply of the service.

    Attributes:
        url: The URL of the request.
        status: The HTTP status.
        headers: The headers; their names are case-insensitive.
        body: The body.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; raises InvalidReply if it is none."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise self.not_the_api() from error
        if not isinstance(document, dict):
            raise self.not_the_api()
        return document

    def message(self) -> str:
        """The service's error message, from `{"error": {"code": …, "message": …}}` or from plain text."""
        try:
            error = json.loads(self.body)["error"]
            text = str(error["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            html = "html" in self.headers.get("Content-Type", "")
            text = "" if html else self.body[:_LONGEST_QUOTE].decode(errors="replace")
        message = " ".join(text.split())
        if len(message) > _LONGEST_QUOTE:
            # The code leads from the shortened message to the documentation.
            code = _CODE.search(message)
            message = message[:_LONGEST_QUOTE] + (f"…{code[0]}" if code else "")
        return message.rstrip(".") or responses.get(self.status, "no reason given")

    def not_the_api(self) -> InvalidReply:
        """The error for a reply of something else."""
        content_type = self.headers.get("Content-Type", "no type")
        return InvalidReply(
            f"{self.url} returned something that is not the job API ({content_type}, {len(self.body)} bytes). Check"
            " host, schema and port of the connection.",
            code="AT-221",
        )


class Transport:
    """Requests to one training service over a connection pool. An async context manager.

    Args:
        settings: The service.
        policy: When a request is retried.
    """

    def __init__(self, settings: ClientSettings, policy: RetryPolicy | None = None) -> None:
        self.settings = settings
        self.policy = policy or REQUEST
        self._tokens = TokenSource(settings, self.policy)
        self._proxy = settings.proxy_for(settings.api_url)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Transport:
        context = self.settings.ssl_context() if self.settings.base_url.startswith("https") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context),
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
            headers=self.settings.headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        read: Callable[[Reply], T],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        expect: Collection[int] = (200,),
        policy: RetryPolicy | None = None,
    ) -> T:
        """Send a request, with retries until the policy's budget is used up.

        Every request of the API is idempotent: the client chooses the ids.

        Args:
            method: GET, POST or DELETE.
            path: Below the API's version, such as `/jobs`.
            read: Reads a reply; if it raises InvalidReply, the request is retried.
            body: The body of the request.
            headers: Headers of this request.
            expect: The expected statuses; every other one is an error.
            policy: The policy of this request, if it differs.

        Raises:
            AuthenticationError: The service refuses the credentials or a fresh token.
            ServiceUnavailable: No reply within the budget.
            RequestRejected: The service rejects the request.
            InvalidReply: Every reply is something other than the job API's.
        """
        url = f"{self.settings.api_url}{path}"

        async def attempt() -> T:
            reply = await self._attempt(method, url, body, headers or {})
            if reply.status not in expect:
                raise _refusal(method, reply)
            try:
                return read(reply)
            except InvalidReply as error:
                # A gateway's page or a truncated document is temporary, like an overload.
                raise TryAgain("it returned something else", error=error) from error

        try:
            result: T = await AsyncRetrying(**(policy or self.policy).tenacity())(attempt)
        except TryAgain as error:
            if error.error:
                raise error.error from error
            raise ServiceUnavailable(
                f"The training service did not answer {method} {url}: {error.reason}. Check that it runs and that"
                " host, schema and port of the connection point to it.",
                code="AT-201",
            ) from error
        return result

    async def _attempt(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        token = await self._tokens.atoken()
        reply = await self._send(method, url, body, headers, token)
        if reply.status == TOKEN_REFUSED:
            # The token may have been revoked, or the service's keys renewed: after one fresh token a refusal is final.
            self._tokens.discard(token)
            reply = await self._send(method, url, body, headers, await self._tokens.atoken())
        if reply.status in AGAIN:
            raise TryAgain(f"it returned {reply.status}, {reply.message()}", after=retry_after(reply.headers))
        return reply

    async def _send(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], token: str) -> Reply:
        assert self._session is not None, "a Transport is used within `async with`"  # noqa: S101 - misuse by us
        headers = {**headers, "Authorization": f"Bearer {token}"}
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, proxy=self._proxy, allow_redirects=False
            ) as answer:
                return Reply(url, answer.status, answer.headers, await _read(answer.content))
        except asyncio.TimeoutError as error:
            raise TryAgain(f"no answer within {self.settings.timeout:g} seconds") from error
        except aiohttp.ClientHttpProxyError as error:
            # The library's text has the proxy's password in it, and would reach the task log.
            raise TryAgain(f"the proxy returned {error.status}, {error.message}") from None
        except aiohttp.ClientError as error:
            raise TryAgain(describe(error)) from error


def _refusal(method: str, reply: Reply) -> AuthenticationError | RequestRejected:
    if reply.status == TOKEN_REFUSED:
        return AuthenticationError(
            f"The training service refused a fresh token for {method} {reply.url}: {reply.message()}."
            " Check that `oauth_token_url` of the connection belongs to this service.",
            code="AT-142",
        )
    if location := reply.headers.get("Location"):
        return RequestRejected(
            f"The training service redirects {method} {reply.url} to {location}: put the intended URL into the"
            " connection.",
            status=reply.status,
            code="AT-212",
        )
    return RequestRejected(
        f"The training service refused {method} {reply.url} with {reply.status}: {reply.message()}.",
        status=reply.status,
        code="AT-211",
    )


async def _read(stream: aiohttp.StreamReader) -> bytes:
    """Read a reply, up to just above the size of the largest of the API."""
    content = bytearray()
    async for piece in stream.iter_any():
        content += piece
        if len(content) > _LONGEST_REPLY:
            break
    return bytes(content)
