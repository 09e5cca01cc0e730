"""The OAuth2 access token: fetched by the client-credentials grant, kept until shortly before it expires.

Source: RFC 6749 section 4.4.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus

from oauthlib.oauth2 import BackendApplicationClient, MissingTokenError, OAuth2Error
from requests import PreparedRequest, RequestException, Response
from requests.auth import AuthBase, HTTPBasicAuth
from requests_oauthlib import OAuth2Session
from tenacity import AsyncRetrying, Retrying

from airflow_training.client.retry import AGAIN, REFUSED, RetryPolicy, TryAgain, retry_after
from airflow_training.client.settings import ClientSettings, unreadable_certificates
from airflow_training.exceptions import AuthenticationError, InvalidReply, ServiceUnavailable

# At DEBUG these write the request with its credentials, and the token that comes back.
for _talkative in ("requests_oauthlib", "oauthlib"):
    logging.getLogger(_talkative).setLevel(logging.INFO)

_INSECURE_TRANSPORT = "OAUTHLIB_INSECURE_TRANSPORT"
# What stands before the host of an address: of a proxy, for instance.
_LOGIN = re.compile(r"(?<=://)[^\s/]*@")
_environment = threading.Lock()


class TokenSource(AuthBase):
    """Gives out one token to all who ask, and fetches a new one before it expires.

    However many ask at once, in threads and on an event loop, the token is fetched once. It is an
    authentication of `requests` as well.

    Args:
        settings: The OAuth2 server and the credentials.
        policy: How long an OAuth2 server that does not answer is asked again.

    Raises:
        AuthenticationError: The server refuses the credentials.
        ServiceUnavailable: It does not answer.
        InvalidReply: It answers with something that is no token.
        InvalidConnection: The certificates of the settings cannot be read.
    """

    # A token is renewed when a tenth of its life is left, and at most a minute before its end.
    _LONGEST_LEEWAY = 60.0
    _UNTOLD_LIFETIME = 300.0

    def __init__(self, settings: ClientSettings, policy: RetryPolicy | None = None) -> None:
        self._settings = settings
        self._policy = policy or RetryPolicy()
        self._token = ""
        self._good_until = 0.0
        # The forms in which the credentials are sent, the one that was accepted last first.
        self._forms = _credentials(settings)
        self._threads = threading.Lock()
        self._tasks = asyncio.Lock()

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token()}"
        return request

    def token(self) -> str:
        """Return a token that is good for a while; blocks while one is fetched."""
        with self._in_words():
            return Retrying(**self._policy.tenacity())(self._once)

    async def atoken(self) -> str:
        """Return a token that is good for a while, without blocking the event loop."""

        async def once() -> str:
            return await asyncio.to_thread(self._once)

        async with self._tasks:
            if time.monotonic() < self._good_until:
                return self._token
            # The waits between two requests are spent here: threads are few, and others need them.
            with self._in_words():
                return await AsyncRetrying(**self._policy.tenacity())(once)

    def discard(self, token: str) -> None:
        """Forget a token that was refused, unless it has been renewed meanwhile."""
        with self._threads:
            if token == self._token:
                self._good_until = 0.0

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except TryAgain as error:
            if error.error:
                raise error.error from error
            raise ServiceUnavailable(
                f"No token could be fetched from {self._settings.token_server}: {error.reason}. Check that the"
                " OAuth2 server runs and that `oauth_token_url` of the connection, or its host and port where it has"
                " none, point to it.",
                code="AT-202",
            ) from error

    def _once(self) -> str:
        with self._threads:
            if time.monotonic() >= self._good_until:
                answer = self._fetch()
                lifetime = float(answer.get("expires_in") or self._UNTOLD_LIFETIME)
                self._token = str(answer["access_token"])
                self._good_until = time.monotonic() + lifetime - min(self._LONGEST_LEEWAY, lifetime / 10)
            return self._token

    def _fetch(self) -> dict[str, Any]:
        form, *others = self._forms
        try:
            return self._fetch_with(form)
        except AuthenticationError as error:
            if not others or getattr(error.__cause__, "error", None) in _REMEDIES:
                raise
            token = self._fetch_with(others[0])
        # The next token is requested in this form first.
        self._forms.reverse()
        return token

    def _fetch_with(self, credentials: _Credentials) -> dict[str, Any]:
        settings, url = self._settings, self._settings.token_endpoint
        client = BackendApplicationClient(client_id=settings.client_id, scope=settings.token_scope or None)
        session = OAuth2Session(client=client, scope=settings.token_scope or None)
        session.register_compliance_hook("access_token_response", _judge)
        session.headers.update({**settings.headers_for(url), **settings.token_headers})
        session.verify, session.cert = settings.verify, settings.cert
        if proxy := settings.proxy_for(url):
            session.proxies.update({"http": proxy, "https": proxy})
        session.trust_env = False  # the settings know the environment; a .netrc must not answer for them
        parameters: _Credentials = {"audience": settings.token_audience} if settings.token_audience else {}
        try:
            with _transport_allowed(url), session:
                token: dict[str, Any] = session.fetch_token(
                    url,
                    method=settings.token_http_method,
                    timeout=settings.timeout,
                    **{**credentials, **parameters},
                )
        except Warning as warning:
            # A server may grant other scopes than were requested, which oauthlib takes for an error (RFC 6749 section
            # 3.3). What the token allows, the job API knows.
            token = warning.token  # type: ignore[attr-defined]
        except RequestException as error:
            raise TryAgain(describe(error)) from error
        except OSError as error:
            raise unreadable_certificates(error) from error
        except (MissingTokenError, ValueError) as error:
            no_token = InvalidReply(
                f"{settings.token_server} did not answer with a token. Check that `oauth_token_url` of the connection"
                " is the token endpoint of the OAuth2 server.",
                code="AT-203",
            )
            raise TryAgain("it answered with something else", error=no_token) from error
        except OAuth2Error as error:
            said = str(error.description or error.error).rstrip(".")
            raise AuthenticationError(
                f"The OAuth2 server at {settings.token_server} refused the client {settings.client_id!r}: {said}."
                f" {_REMEDIES.get(error.error or '', 'Check login and password of the connection.')}",
                code="AT-141",
            ) from error
        return token


_Credentials = dict[str, Any]
# Of the errors that have nothing to do with the credentials. Sources: RFC 6749 section 5.2, RFC 8707 section 2.
_REMEDIES = {
    "invalid_scope": "Check `oauth_scope` of the connection.",
    "invalid_target": "Check `oauth_audience` of the connection.",
}


def _credentials(settings: ClientSettings) -> list[_Credentials]:
    """Return the forms in which the token endpoint may expect client id and secret."""
    if settings.token_auth_method == "client_secret_post":
        return [{"include_client_id": True, "client_secret": settings.client_secret}]
    plain = (settings.client_id, settings.client_secret)
    # RFC 6749 section 2.3.1 has both encoded as in a form, which most servers and clients do not do. Only a secret
    # with a character such as + or % tells which kind a server is.
    encoded = (quote_plus(plain[0]), quote_plus(plain[1]))
    # As bytes: `requests` would encode text as Latin-1.
    return [
        {"auth": HTTPBasicAuth(client_id.encode(), secret.encode())}
        for client_id, secret in dict.fromkeys([plain, encoded])
        # A colon ends the client id.
        if ":" not in client_id
    ]


def _judge(reply: Response) -> Response:
    """See to the replies that are not those of RFC 6749, which oauthlib would take for a token without a token."""
    if reply.status_code in AGAIN:
        raise TryAgain(f"it answered {reply.status_code}", after=retry_after(reply.headers))
    if reply.status_code in REFUSED and "json" not in reply.headers.get("Content-Type", ""):
        raise OAuth2Error(description=f"it answered {reply.status_code} {reply.reason}")
    return reply


@contextmanager
def _transport_allowed(url: str) -> Iterator[None]:
    """Let oauthlib speak plain HTTP where the connection says `http`; it knows only an environment variable."""
    if not url.startswith("http://"):
        yield
        return
    with _environment:
        before = os.environ.get(_INSECURE_TRANSPORT)
        os.environ[_INSECURE_TRANSPORT] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_INSECURE_TRANSPORT]
            else:
                os.environ[_INSECURE_TRANSPORT] = before


def describe(error: BaseException) -> str:
    """Say in a few words what went wrong on the wire: libraries wrap the one useful sentence several times."""
    while inner := error.__cause__ or error.__context__ or _wrapped(error):
        error = inner
    return without_login(str(getattr(error, "strerror", None) or error or type(error).__name__))


def without_login(text: str) -> str:
    """Leave out who logs in where a text names addresses with it.

    >>> without_login("no way through 'http://user:s3cr3t@proxy:3128'")
    "no way through 'http://proxy:3128'"
    """
    return _LOGIN.sub("", text)


def _wrapped(error: BaseException) -> BaseException | None:
    inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    return inner if isinstance(inner, BaseException) else None
