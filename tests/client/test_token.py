"""The OAuth2 token: every form of asking, asked once, renewed unnoticed, refused in words."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace

import pytest

from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings, TokenAuthMethod, TokenHttpMethod
from airflow_training.client.token import TokenSource
from airflow_training.client.training import TrainingClient
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
        with pytest.raises(AuthenticationError, match=rf"refused the client 'client': it answered {status} "):
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
