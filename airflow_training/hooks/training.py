"""The connection to a training service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException
from pydantic import BeforeValidator, Field, ValidationError
from requests import Session
from requests.models import DEFAULT_REDIRECT_LIMIT
from tenacity import AsyncRetrying, RetryCallState, Retrying

from airflow_training.client import diagnostics
from airflow_training.client.auth import TokenSource
from airflow_training.client.client import TrainingClient
from airflow_training.client.retry import CHECK, REQUEST, RetryPolicy, TryAgain
from airflow_training.client.settings import ClientSettings, ConnectionFields, Flag
from airflow_training.exceptions import InvalidConnection, ServiceUnavailable

if TYPE_CHECKING:
    from airflow.sdk import Connection


def _object(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


class _Extra(ConnectionFields):
    """The extra of a connection: the fields, and those of HttpHook for `run`; any other name is a header."""

    oauth_headers: Annotated[dict[str, Any], BeforeValidator(_object)] = Field(
        {}, description="must be an object of names and values"
    )
    job_page_url: str = Field("", description="must be text")
    stream: Flag = False
    allow_redirects: Flag = True
    max_redirects: int = Field(DEFAULT_REDIRECT_LIMIT, ge=0, description="must be a whole number")
    check_response: Flag = True
    srv_lookup: Flag = False


# Other names of fields in HttpHook.
_ALIASES = {"proxy": "proxies", "verify_ssl": "verify"}
_FIELDS = frozenset({*_Extra.model_fields, *_ALIASES})
EXTRA_FIELDS = frozenset(name for name in _Extra.model_fields if name.startswith("oauth_")) | {
    "api_version",
    "job_page_url",
}
"""The fields that HttpHook does not know, and would take for headers."""

# Their values may contain a password, and are not shown.
_PRIVATE = frozenset({"proxies", "oauth_headers", "oauth_token_url"})
_LONGEST_QUOTE = 60

# Source: RFC 9110 sections 5.1 and 5.5.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


class TrainingHook(HttpHook):
    """A training service, reached by an Airflow connection of the type `training`.

    Host, schema, port and the extra's headers, `verify`, `cert`, `proxies`, `timeout` and `trust_env` have the meaning
    of a connection of the type `http`; login and password are the OAuth2 client's id and secret. The extra may also
    contain `oauth_token_url`, `oauth_auth_method` ("client_secret_basic" or "client_secret_post"), `oauth_http_method`
    ("POST", "GET"), `oauth_scope`, `oauth_audience`, `oauth_headers`, `api_version` ("v2") and `job_page_url`, the page
    of a job, with the placeholder `{job_id}`.

    Args:
        training_conn_id: The connection.
        method: The method of `run`, which sends any request to the job API with a token.

    Example:
        >>> hook = TrainingHook("training_default", method="GET")  # doctest: +SKIP
        >>> hook.run("api/v2/jobs").json()  # doctest: +SKIP
        {'jobs': []}
    """

    conn_name_attr = "training_conn_id"
    default_conn_name = "training_default"
    conn_type = "training"
    hook_name = "Training service"

    def __init__(self, training_conn_id: str = default_conn_name, method: str = "GET", **kwargs: Any) -> None:
        super().__init__(method=method, http_conn_id=training_conn_id, **kwargs)
        self.training_conn_id = training_conn_id

    def connection(self) -> Connection:
        """The connection.

        Raises:
            InvalidConnection: It does not exist.
            ServiceUnavailable: Airflow cannot read it at the moment.
        """
        with self._reading_errors(), self._read(known=False):
            return self.get_connection(self.training_conn_id)

    def client(self, *, version: str | None = None, policy: RetryPolicy | None = None) -> TrainingClient:
        """Make a client of the job API.

        Args:
            version: The version of the API, if it is not the connection's.
            policy: The retries of requests, and of reading the connection.

        Raises:
            InvalidConnection: The connection does not exist, or is incomplete.
            ServiceUnavailable: Airflow could not read it within the policy's budget.
        """
        with self._reading_errors():
            for attempt in Retrying(**self._patience(policy)):
                with attempt, self._read(known=False):
                    connection = self.get_connection(self.training_conn_id)
        return self._client(connection, version, policy)

    async def connect(
        self, *, version: str | None = None, policy: RetryPolicy | None = None, known: bool = False
    ) -> TrainingClient:
        """Make a client of the job API on a worker's event loop, without blocking it between two attempts.

        Args:
            version: The version of the API, if it is not the connection's.
            policy: The retries of requests, and of reading the connection.
            known: Whether the connection was used before: if it is not found then, Airflow may have failed.
        """
        with self._reading_errors():
            async for attempt in AsyncRetrying(**self._patience(policy)):
                with attempt, self._read(known):
                    connection = self.get_connection(self.training_conn_id)
        return self._client(connection, version, policy)

    async def aclient(self, *, version: str | None = None, policy: RetryPolicy | None = None) -> TrainingClient:
        """Make a client of the job API in the triggerer, whose event loop must not wait for the database.

        The trigger's job was submitted over this connection, so the connection has existed.
        """
        with self._reading_errors():
            async for attempt in AsyncRetrying(**self._patience(policy)):
                with attempt, self._read(known=True):
                    connection = await self.aget_connection(self.training_conn_id)
        return self._client(connection, version, policy)

    def job_page(self, job_id: str) -> str | None:
        """The page of a job from the connection's `job_page_url`; None if it has none.

        Args:
            job_id: The job.

        Raises:
            InvalidConnection: The connection does not exist, or its `job_page_url` is not a URL.
            ServiceUnavailable: Airflow cannot read it at the moment.
        """
        page = _read_extra(self.connection())[0].job_page_url
        if page and not page.startswith(("http://", "https://")):
            raise InvalidConnection(
                f"job_page_url of the connection {self.training_conn_id!r} must begin with http:// or https://, not"
                f" {page!r}.",
                code="AT-105",
            )
        return page.replace("{job_id}", job_id) or None

    @contextmanager
    def _read(self, known: bool) -> Iterator[None]:
        """Distinguish temporary from permanent errors when Airflow reads the connection."""
        try:
            yield
        except AirflowNotFoundException as error:
            # Airflow 3.3 raises it as well if a secrets backend or its own database failed: it ignores that error.
            if known or _has_secrets_backend():
                raise TryAgain("Airflow cannot find it, or could not query its secrets backend") from error
            raise InvalidConnection(
                f"There is no connection {self.training_conn_id!r}: create it under Admin, Connections, with the type"
                " Training service.",
                code="AT-101",
            ) from error
        except PermissionError as error:
            raise InvalidConnection(
                f"Airflow does not let this task read the connection {self.training_conn_id!r}.", code="AT-115"
            ) from error
        except Exception as error:
            # The text of a secrets backend's error may contain a URL or a token.
            raise TryAgain(f"reading it failed with {type(error).__name__}") from error

    @contextmanager
    def _reading_errors(self) -> Iterator[None]:
        try:
            yield
        except TryAgain as error:
            raise ServiceUnavailable(
                f"The connection {self.training_conn_id!r} could not be read: {error.reason}. Check that it exists, and"
                " Airflow's secrets backend and database.",
                code="AT-110",
            ) from error

    def _patience(self, policy: RetryPolicy | None) -> dict[str, Any]:
        def warn(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome:
                self.log.warning(
                    "The connection %r could not be read, retrying: %s",
                    self.training_conn_id,
                    state.outcome.exception(),
                )

        return {**(policy or REQUEST).tenacity(), "before_sleep": warn}

    def _client(self, connection: Connection, version: str | None, policy: RetryPolicy | None) -> TrainingClient:
        settings = self._settings(connection)
        return TrainingClient(replace(settings, api_version=version) if version else settings, policy)

    def test_connection(self) -> tuple[bool, str]:
        """Check token, job API and storage, one after another; the message names the one that fails."""
        steps = list(diagnostics.check(lambda: self.client(policy=CHECK)))
        works, message = steps[-1]
        return works, "; ".join(text for _, text in steps) if works else message

    def _settings(self, connection: Connection) -> ClientSettings:
        extra, headers = _read_extra(connection)
        if missing := [
            name
            for name, value in (
                ("host", connection.host),
                ("login (the OAuth2 client id)", connection.login),
                ("password (the OAuth2 client secret)", connection.password),
            )
            if not value
        ]:
            raise InvalidConnection(
                f"The connection {connection.conn_id!r} has no {', no '.join(missing)}.", code="AT-102"
            )
        if extra.srv_lookup:
            raise InvalidConnection(
                f"srv_lookup of the connection {connection.conn_id!r} is not supported for a training service: set host"
                " and port instead.",
                code="AT-114",
            )
        self._set_base_url(connection)
        return extra.settings(
            self.base_url,
            connection.login or "",
            connection.password or "",
            headers=headers,
            token_headers=_headers(extra.oauth_headers, connection),
        )

    def _configure_session_from_auth(self, session: Session, connection: Connection) -> Session:
        session.auth = TokenSource(self._settings(connection))
        return session

    def _configure_session_from_extra(
        self, session: Session, connection: Connection, extra_options: dict[str, Any]
    ) -> Session:
        extra, headers = _read_extra(connection)
        # HttpHook takes unknown fields for headers, and does not convert text to other types.
        http_connection = copy(connection)
        fields = extra.model_dump(exclude_unset=True, exclude=set(EXTRA_FIELDS))
        http_connection.extra = json.dumps({**headers, **fields})
        return super()._configure_session_from_extra(session, http_connection, extra_options)


def _has_secrets_backend() -> bool:
    return bool(conf.get("secrets", "backend", fallback="") or conf.get("workers", "secrets_backend", fallback=""))


def _read_extra(connection: Connection) -> tuple[_Extra, dict[str, str]]:
    """Read the extra of a connection.

    Returns:
        Its fields, and the headers of every request.

    Raises:
        InvalidConnection: A value is invalid, or an unknown name would become a header.
    """
    given = connection.extra_dejson
    # Airflow returns an empty one if it cannot be read.
    if not isinstance(given, dict) or (not given and (connection.extra or "").strip() not in ("", "{}")):
        raise InvalidConnection(
            f"The extra of the connection {connection.conn_id!r} is not a JSON object.",
            code="AT-111",
        )
    fields = {_ALIASES[name]: value for name, value in given.items() if name in _ALIASES}
    fields |= {name: value for name, value in given.items() if name in _Extra.model_fields}
    try:
        extra = _Extra.model_validate(fields)
    except ValidationError as error:
        names = dict.fromkeys(str(detail["loc"][0]) for detail in error.errors(include_input=False))
        errors = [f"{name} {_Extra.model_fields[name].description}{_quoted(name, fields[name])}" for name in names]
        raise InvalidConnection(
            f"The extra of the connection {connection.conn_id!r} cannot be used: {'; '.join(errors)}.",
            code="AT-103",
        ) from None
    return extra, _headers({name: value for name, value in given.items() if name not in _FIELDS}, connection)


def _quoted(name: str, value: Any) -> str:
    quote = repr(value)
    return "" if name in _PRIVATE or len(quote) > _LONGEST_QUOTE else f", not {quote}"


def _headers(given: Mapping[str, Any], connection: Connection) -> dict[str, str]:
    """Read headers; a misspelled field must not become a header of every request."""
    errors = []
    headers = {}
    for name, value in given.items():
        if value is None:
            continue
        if hint := _hint(name):
            errors.append(f"{name!r} is unknown ({hint})")
        elif not _HEADER_NAME.fullmatch(name):
            errors.append(f"{name!r} is neither a field nor a valid header name")
        elif name.lower() == "authorization":
            errors.append(f"{name} is reserved for the access token")
        elif isinstance(value, (dict, list)) or not _HEADER_VALUE.fullmatch(text := str(value).strip()):
            errors.append(f"{name!r} is a header, whose value must be one line of ASCII text")
        else:
            headers[name] = text
    if errors:
        raise InvalidConnection(
            f"The extra of the connection {connection.conn_id!r} has unknown names: {'; '.join(errors)}.",
            code="AT-112",
        )
    return headers


def _hint(name: str) -> str:
    """Suggest the field for an unknown name; empty if it may be a header."""
    plain = name.lower().replace("-", "_")
    if plain == "headers":
        return "each header is a separate name in the extra"
    close = [field for field in (plain, f"oauth_{plain}") if field in _FIELDS and ("-" not in name)]
    if plain.startswith("oauth") or "-" not in name:
        close += get_close_matches(plain, _FIELDS, n=1, cutoff=0.8)
    if close:
        return f"did you mean {close[0]}?"
    if plain.startswith("oauth"):
        return f"the fields are {', '.join(sorted(field for field in _FIELDS if field.startswith('oauth_')))}"
    return ""
