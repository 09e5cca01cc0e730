"""The OAuth2 token: every form of asking, asked once, renewed unnoticed, refused in words."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import parse_qs, unquote_plus

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given
from hypothesis import settings as of_examples
from hypothesis import strategies as st

from airflow_training.client.auth import TokenSource
from airflow_training.client.client import TrainingClient
from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings, TokenAuthMethod, TokenHttpMethod
from airflow_training.exceptions import AuthenticationError, InvalidReply, ServiceUnavailable
from tests.client.faulty import FaultyService, answer, token

pytestmark = pytest.mark.anyio
IMPATIENT = RetryPolicy(budget=0.5, first=0.01)


@pytest.mark.parametrize(
    ("auth_method", "http_method"),
    [("client_secret_basic", "POST"), ("client_secret_post", "POST"), ("client_secret_basic", "GET")],
)
async def test_the_service_gives_a_token_for_every_form_of_asking(
    settings: ClientSettings, auth_method: TokenAuthMethod, http_method: TokenHttpMethod
) -> None:
    asking = replace(settings, token_auth_method=auth_method, token_http_method=http_method)

    async with TrainingClient(asking) as client:
        assert isinstance(await client.jobs(), list)


async def test_a_wrong_secret_is_refused_at_once_and_not_repeated(settings: ClientSettings) -> None:
    wrong = replace(settings, client_secret="wr0ng-s3cr3t")

    with pytest.raises(AuthenticationError, match=r"refused the client 'tests'.*Check login and password") as raised:
        await TokenSource(wrong).atoken()
    assert "wr0ng-s3cr3t" not in str(raised.value) + repr(wrong)


async def test_many_who_ask_at_once_cause_one_request() -> None:
    faulty = FaultyService()
    async with faulty.running() as settings:
        source = TokenSource(settings)
        tokens = await asyncio.gather(*(source.atoken() for _ in range(50)), asyncio.to_thread(source.token))

    assert set(tokens) == {"good"}
    assert len(faulty.token_requests) == 1


async def test_a_token_is_renewed_before_it_expires() -> None:
    faulty = FaultyService(tokens=[token("short", lifetime=1), token("long")])
    async with faulty.running() as settings:
        source = TokenSource(settings)
        began = time.monotonic()
        while await source.atoken() == "short":
            assert time.monotonic() < began + 1, "an expired token was given out"
            await asyncio.sleep(0.01)
        assert await source.atoken() == "long"


async def test_a_server_that_is_busy_is_asked_again() -> None:
    faulty = FaultyService(tokens=[answer(503, Retry_After="0"), answer(429), token()])
    async with faulty.running() as settings:
        assert await TokenSource(settings, RetryPolicy(first=0.01)).atoken() == "good"


async def test_a_server_that_is_not_there_is_named_with_what_to_check(unused_port: int) -> None:
    nobody = ClientSettings(f"http://127.0.0.1:{unused_port}", "client", "s3cr3t")

    with pytest.raises(ServiceUnavailable, match=r"Connection refused.*Check that the OAuth2 server runs"):
        await TokenSource(nobody, IMPATIENT).atoken()


@pytest.mark.parametrize("page", [answer(200, "<html>Log in</html>", "text/html"), answer(404, "no"), answer(200)])
async def test_what_is_no_token_is_called_so(page: object) -> None:
    async with FaultyService(tokens=[page]).running() as settings:  # type: ignore[list-item]
        with pytest.raises(InvalidReply, match="did not answer with a token"):
            await TokenSource(settings, IMPATIENT).atoken()


@pytest.mark.parametrize("lifetime", ["null", "-5", '"3600"', "0"])
async def test_a_lifetime_of_any_kind_is_lived_with(lifetime: str) -> None:
    reply = answer(200, f'{{"access_token": "good", "token_type": "bearer", "expires_in": {lifetime}}}')
    async with FaultyService(tokens=[reply]).running() as settings:
        assert await TokenSource(settings, IMPATIENT).atoken() == "good"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_in_a_form_of_its_own_is_a_refusal(status: int) -> None:
    async with FaultyService(tokens=[answer(status, "<html>No</html>", "text/html")]).running() as settings:
        with pytest.raises(AuthenticationError, match=rf"refused the client 'client': it returned {status} "):
            await TokenSource(settings, IMPATIENT).atoken()


async def test_no_secret_is_logged_even_at_debug(settings: ClientSettings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        got = await TokenSource(settings).atoken()

    assert settings.client_secret not in caplog.text
    assert got not in caplog.text


async def test_plain_http_is_allowed_for_this_request_only(settings: ClientSettings) -> None:
    assert settings.base_url.startswith("http://")
    await TokenSource(settings).atoken()

    assert "OAUTHLIB_INSECURE_TRANSPORT" not in os.environ


def literal(value: str) -> str:
    return value


class Guarded(FaultyService):
    """Gives a token for the right credentials in HTTP Basic only, as a server of one kind or the other reads it."""

    def __init__(self, client_id: str, secret: str, read: Callable[[str], str]) -> None:
        super().__init__(tokens=[self.judge])
        self.right = (client_id, secret)
        self.read = read

    def judge(self) -> web.StreamResponse:
        basic = base64.b64decode(self.token_requests[-1].headers["Authorization"].removeprefix("Basic "))
        client_id, _, secret = basic.decode().partition(":")
        if (self.read(client_id), self.read(secret)) == self.right:
            return token(lifetime=1)()
        return answer(401, '{"error": "invalid_client"}')()


@pytest.mark.parametrize("read", [literal, unquote_plus])
@of_examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    client_id=st.text(st.characters(exclude_categories=["C"], exclude_characters=":"), min_size=1),
    secret=st.text(st.characters(exclude_categories=["C"]), min_size=1) | st.text("+%/=2B ", min_size=1),
)
def test_any_secret_is_understood_by_servers_that_decode_it_and_by_those_that_do_not(
    read: Callable[[str], str], client_id: str, secret: str
) -> None:
    async def ask() -> str:
        async with Guarded(client_id, secret, read).running() as settings:
            return await TokenSource(replace(settings, client_id=client_id, client_secret=secret)).atoken()

    assert asyncio.run(ask()) == "good"


async def test_the_form_that_was_accepted_comes_first_the_next_time() -> None:
    guarded = Guarded("client", "a+b", unquote_plus)
    async with guarded.running() as settings:
        source = TokenSource(replace(settings, client_secret="a+b"))
        for _ in range(2):
            source.discard(await source.atoken())

    assert len(guarded.token_requests) == 3


async def test_a_secret_without_such_characters_is_sent_once() -> None:
    guarded = Guarded("client", "another", literal)
    async with guarded.running() as settings:
        with pytest.raises(AuthenticationError, match="refused the client"):
            await TokenSource(settings).atoken()

    assert len(guarded.token_requests) == 1


async def test_scope_and_audience_are_requested() -> None:
    forms: list[dict[str, list[str]]] = []
    faulty = FaultyService()

    def keep() -> web.StreamResponse:
        forms.append(parse_qs(faulty.token_requests[-1]._read_bytes.decode()))  # type: ignore[union-attr]
        return token()()

    faulty.tokens[:] = [keep]
    async with faulty.running() as settings:
        asking = replace(settings, token_scope="api://training/.default more", token_audience="https://training")
        await TokenSource(asking).atoken()

    assert forms == [
        {
            "grant_type": ["client_credentials"],
            "scope": ["api://training/.default more"],
            "audience": ["https://training"],
        }
    ]


async def test_scope_and_audience_are_requested_by_get_too() -> None:
    faulty = FaultyService()
    async with faulty.running() as settings:
        asking = replace(settings, token_http_method="GET", token_scope="jobs:read", token_audience="training")
        await TokenSource(asking).atoken()

    assert dict(faulty.token_requests[0].query) == {
        "grant_type": "client_credentials",
        "scope": "jobs:read",
        "audience": "training",
    }


async def test_a_server_may_grant_another_scope() -> None:
    granted = answer(200, '{"access_token": "good", "token_type": "bearer", "expires_in": 60, "scope": "less"}')
    async with FaultyService(tokens=[granted]).running() as settings:
        assert await TokenSource(replace(settings, token_scope="more")).atoken() == "good"


async def test_a_scope_that_is_refused_is_not_taken_for_a_wrong_secret() -> None:
    faulty = FaultyService(tokens=[answer(400, '{"error": "invalid_scope"}')])
    async with faulty.running() as settings:
        with pytest.raises(AuthenticationError, match="Check `oauth_scope` of the connection"):
            await TokenSource(replace(settings, client_secret="a+b")).atoken()

    assert len(faulty.token_requests) == 1


async def test_a_service_gives_a_token_for_fewer_scopes(settings: ClientSettings) -> None:
    async with TrainingClient(replace(settings, token_scope="jobs:read")) as client:
        assert isinstance(await client.jobs(), list)


async def test_the_headers_of_every_request_go_to_the_token_endpoint_of_the_same_host() -> None:
    faulty = FaultyService()
    async with faulty.running() as settings:
        headers = {"X-Key": "k"}
        await TokenSource(replace(settings, headers=headers)).atoken()
        elsewhere = replace(
            settings, headers=headers, base_url="https://api.example", token_url=settings.token_endpoint
        )
        await TokenSource(elsewhere).atoken()
        await TokenSource(replace(elsewhere, token_headers={"X-Other": "o"})).atoken()

    seen = [{name: request.headers.get(name) for name in ("X-Key", "X-Other")} for request in faulty.token_requests]
    assert seen == [
        {"X-Key": "k", "X-Other": None},
        {"X-Key": None, "X-Other": None},
        {"X-Key": None, "X-Other": "o"},
    ]
