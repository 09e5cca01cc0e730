"""The OAuth2 access token: fetched by the client-credentials grant, cached until shortly before it expires.

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

from airflow_training.client.retry import AGAIN, REFUSED, REQUEST, RetryPolicy, TryAgain, retry_after
from airflow_training.client.settings import ClientSettings, unreadable_certificates
from airflow_training.exceptions import AuthenticationError, InvalidReply, ServiceUnavailable

# At DEBUG these log the request with its credentials and the reply with the token.
for _logger_name in ("requests_oauthlib", "oauthlib"):
    logging.getLogger(_logger_name).setLevel(logging.INFO)

_INSECURE_TRANSPORT = "OAUTHLIB_INSECURE_TRANSPORT"
# The userinfo of a URL, for example of a proxy.
_LOGIN = re.compile(r"(?<=://)[^\s/]*@")
_environment = threading.Lock()


class TokenSource(AuthBase):
    """One token for all requests, renewed before it expires; an authentication of `requests` as well.

    Concurrent callers, in threads and on an event loop, share one fetch.

    Args:
        settings: The OAuth2 server and the credentials.
        policy: When a token request is retried.

    Raises:
        AuthenticationError: The server refuses the credentials.
        ServiceUnavailable: The server is unreachable.
        InvalidReply: The reply is not a token.
        InvalidConnection: The certificates of the settings cannot be read.
    """

    # A token is renewed when a tenth of its lifetime is left, at most a minute before it expires.
    _LONGEST_LEEWAY = 60.0
    _DEFAULT_LIFETIME = 300.0

    def __init__(self, settings: ClientSettings, policy: RetryPolicy | None = None) -> None:
        self._settings = settings
        self._policy = policy or REQUEST
        self._token = ""
        self._valid_until = 0.0
        # The ways to send the credentials, the one that was accepted last first.
        self._forms = _credentials(settings)
        self._threads = threading.Lock()
        self._tasks = asyncio.Lock()

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token()}"
        return request

    def token(self) -> str:
        """Return a valid token; blocks while it is fetched."""
        with self._readable_errors():
            return Retrying(**self._policy.tenacity())(self._once)

    async def atoken(self) -> str:
        """Return a valid token, without blocking the event loop."""
        async with self._tasks:
            if time.monotonic() < self._valid_until:
                return self._token
            # The waits between retries happen here, since threads are few.
            with self._readable_errors():
                return await AsyncRetrying(**self._policy.tenacity())(asyncio.to_thread, self._once)

    def discard(self, token: str) -> None:
        """Discard a refused token, unless it has been renewed meanwhile."""
        with self._threads:
            if token == self._token:
                self._valid_until = 0.0

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except TryAgain as error:
            if error.error:
                raise error.error from error
            raise ServiceUnavailable(
                f"No token could be fetched from {self._settings.token_server}: {error.reason}. Check that the"
                " OAuth2 server runs and that `oauth_token_url` of the connection, or its host and port if it has"
                " none, point to it.",
                code="AT-202",
            ) from error

    def _once(self) -> str:
        with self._threads:
            if time.monotonic() >= self._valid_until:
                answer = self._fetch()
                lifetime = float(answer.get("expires_in") or self._DEFAULT_LIFETIME)
                self._token = str(answer["access_token"])
                self._valid_until = time.monotonic() + lifetime - min(self._LONGEST_LEEWAY, lifetime / 10)
            return self._token

    def _fetch(self) -> dict[str, Any]:
        form, *others = self._forms
        try:
            return self._fetch_with(form)
        except AuthenticationError as error:
            if not others or getattr(error.__cause__, "error", None) in _REMEDIES:
                raise
            token = self._fetch_with(others[0])
        # The next token is requested this way first.
        self._forms.reverse()
        return token

    def _fetch_with(self, credentials: _Credentials) -> dict[str, Any]:
        settings, url = self._settings, self._settings.token_endpoint
        client = BackendApplicationClient(client_id=settings.client_id, scope=settings.token_scope or None)
        session = OAuth2Session(client=client, scope=settings.token_scope or None)
        session.register_compliance_hook("access_token_response", _check_reply)
        session.headers.update({**settings.headers_for(url), **settings.token_headers})
        session.verify, session.cert = settings.verify, settings.cert
        if proxy := settings.proxy_for(url):
            session.proxies.update({"http": proxy, "https": proxy})
        session.trust_env = False  # the settings cover the environment; a .netrc must not override them
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
            # A server may grant other scopes than requested (RFC 6749 section 3.3), which oauthlib treats as an error.
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
            raise TryAgain("it returned something else", error=no_token) from error
        except OAuth2Error as error:
            reason = str(error.description or error.error).rstrip(".")
            remedy = _REMEDIES.get(error.error or "", "Check login and password of the connection.")
            raise AuthenticationError(
                f"The OAuth2 server at {settings.token_server} refused the client {settings.client_id!r}: {reason}."
                f" {remedy}",
                code="AT-141",
            ) from error
        return token


_Credentials = dict[str, Any]
# Remedies for errors other than wrong credentials. Sources: RFC 6749 section 5.2, RFC 8707 section 2.
_REMEDIES = {
    "invalid_scope": "Check `oauth_scope` of the connection.",
    "invalid_target": "Check `oauth_audience` of the connection.",
}


def _credentials(settings: ClientSettings) -> list[_Credentials]:
    """Return the ways in which a token endpoint may expect client id and secret."""
    if settings.token_auth_method == "client_secret_post":
        return [{"include_client_id": True, "client_secret": settings.client_secret}]
    plain = (settings.client_id, settings.client_secret)
    # RFC 6749 section 2.3.1 requires form encoding, which most servers and clients omit. It makes a difference only for
    # characters such as + or %.
    encoded = (quote_plus(plain[0]), quote_plus(plain[1]))
    # As bytes: `requests` would encode text as Latin-1.
    return [
        {"auth": HTTPBasicAuth(client_id.encode(), secret.encode())}
        for client_id, secret in dict.fromkeys([plain, encoded])
        # A colon ends the client id.
        if ":" not in client_id
    ]


def _check_reply(reply: Response) -> Response:
    """Raise for replies outside of RFC 6749, which oauthlib would report as a missing token."""
    if reply.status_code in AGAIN:
        raise TryAgain(f"it returned {reply.status_code}", after=retry_after(reply.headers))
    if reply.status_code in REFUSED and "json" not in reply.headers.get("Content-Type", ""):
        raise OAuth2Error(description=f"it returned {reply.status_code} {reply.reason}")
    return reply


@contextmanager
def _transport_allowed(url: str) -> Iterator[None]:
    """Let oauthlib use plain HTTP if the connection has `http`; it reads an environment variable only."""
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
    """Describe a network error by its innermost cause: libraries wrap the useful message several times."""
    while inner := error.__cause__ or error.__context__ or _wrapped(error):
        error = inner
    return without_credentials(str(getattr(error, "strerror", None) or error or type(error).__name__))


def without_credentials(text: str) -> str:
    """Remove user and password from the URLs in a text.

    >>> without_credentials("no way through 'http://user:s3cr3t@proxy:3128'")
    "no way through 'http://proxy:3128'"
    """
    return _LOGIN.sub("", text)


def _wrapped(error: BaseException) -> BaseException | None:
    inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    return inner if isinstance(inner, BaseException) else None
