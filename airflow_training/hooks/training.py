"""The connection to a training service."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk.exceptions import AirflowNotFoundException
from requests import Session

from airflow_training.client import checking
from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings, TokenAuthMethod, TokenHttpMethod
from airflow_training.client.token import TokenSource
from airflow_training.client.training import TrainingClient
from airflow_training.exceptions import InvalidConnection

if TYPE_CHECKING:
    from airflow.sdk import Connection

# What the extra of a connection may hold beside what HttpHook reads.
EXTRA_FIELDS = frozenset({"oauth_token_url", "oauth_auth_method", "oauth_http_method", "api_version", "job_page_url"})


class TrainingHook(HttpHook):
    """A training service, reached by an Airflow connection of the type `training`.

    Host, schema, port and the extra's headers, `verify`, `cert`, `proxies` and `timeout` mean what they mean
    in a connection of the type `http`; login and password are the OAuth2 client's id and secret. The extra
    holds `oauth_token_url` as well, and where they differ from the defaults `api_version` ("v2"),
    `oauth_auth_method` ("client_secret_basic" or "client_secret_post"), `oauth_http_method` ("POST", "GET") and
    `job_page_url`, the page of a job, with `{job_id}` for its id.

    Args:
        training_conn_id: The connection.
        method: The method of `run`, which makes any request of the job API with a token.

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
        """The connection; raises InvalidConnection where there is none."""
        with self._known():
            return self.get_connection(self.training_conn_id)

    def client(self, *, version: str | None = None, policy: RetryPolicy | None = None) -> TrainingClient:
        """Make a client of the job API; for workers.

        Args:
            version: The API's version, where it is not the connection's.
            policy: When a request is made again.

        Raises:
            InvalidConnection: The connection is not there, or lacks something.
        """
        return self._client(self.connection(), version, policy)

    async def aclient(self, *, version: str | None = None, policy: RetryPolicy | None = None) -> TrainingClient:
        """Make a client of the job API; for the triggerer, whose loop must not wait for the database."""
        with self._known():
            connection = await self.aget_connection(self.training_conn_id)
        return self._client(connection, version, policy)

    def job_page(self, job_id: str) -> str | None:
        """The page of a job that the connection names by its `job_page_url`; None where it names none.

        Args:
            job_id: The job.

        Raises:
            InvalidConnection: The connection is not there, or its `job_page_url` is no address.
        """
        pattern = str(self.connection().extra_dejson.get("job_page_url") or "")
        if pattern and not pattern.startswith(("http://", "https://")):
            raise InvalidConnection(
                f"job_page_url of the connection {self.training_conn_id!r} must begin with http:// or https://, not"
                f" {pattern!r}.",
                code="AT-105",
            )
        return pattern.replace("{job_id}", job_id) or None

    @contextmanager
    def _known(self) -> Iterator[None]:
        try:
            yield
        except AirflowNotFoundException as error:
            raise InvalidConnection(
                f"There is no connection {self.training_conn_id!r}: create it under Admin, Connections, with the type"
                f" {self.hook_name}.",
                code="AT-101",
            ) from error

    def _client(self, connection: Connection, version: str | None, policy: RetryPolicy | None) -> TrainingClient:
        settings = self._settings(connection)
        return TrainingClient(replace(settings, api_version=version) if version else settings, policy)

    def test_connection(self) -> tuple[bool, str]:
        """Try token, job API and storage, one after another; the message names the one that fails."""
        steps = list(self.check())
        works, said = steps[-1]
        return works, "; ".join(said for _, said in steps) if works else said

    def check(self) -> Iterator[tuple[bool, str]]:
        """Try what a training needs, one after another, up to the first that fails.

        Returns:
            Of each, whether it works, and what was found, by its name.
        """
        return checking.check(lambda: self.client(policy=checking.QUICK))

    def _settings(self, connection: Connection) -> ClientSettings:
        extra = connection.extra_dejson
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
        auth_method = _one_of(TokenAuthMethod, extra, "oauth_auth_method", connection)
        http_method = _one_of(TokenHttpMethod, extra, "oauth_http_method", connection)
        self._set_base_url(connection)
        # HttpHook's reading of the extra, and requests' reading of the environment's proxies and certificates.
        session = self._configure_session_from_extra(Session(), connection, {})
        found = session.merge_environment_settings(
            self.base_url, session.proxies, session.stream, session.verify, session.cert
        )
        headers = dict(session.headers.items() - Session().headers.items())
        return ClientSettings(
            base_url=self.base_url,
            client_id=connection.login or "",
            client_secret=connection.password or "",
            token_url=str(extra.get("oauth_token_url") or ""),
            token_auth_method=auth_method,
            token_http_method=http_method,
            api_version=str(extra.get("api_version") or "v2"),
            headers={name: str(value) for name, value in headers.items()},
            verify=found["verify"] if found["verify"] is not None else True,
            cert=found["cert"],
            proxies=found["proxies"],
            timeout=_seconds(self.merged_extra.get("timeout"), connection),
        )

    def _configure_session_from_auth(self, session: Session, connection: Connection) -> Session:
        session.auth = TokenSource(self._settings(connection))
        return session

    def _configure_session_from_extra(
        self, session: Session, connection: Connection, extra_options: dict[str, Any]
    ) -> Session:
        # HttpHook takes what it does not know for headers.
        theirs = copy(connection)
        theirs.extra = json.dumps({k: v for k, v in connection.extra_dejson.items() if k not in EXTRA_FIELDS})
        return super()._configure_session_from_extra(session, theirs, extra_options)


def _one_of(choices: Any, extra: Mapping[str, Any], name: str, connection: Connection) -> Any:
    """Read a field of the extra that has few possible values; the first is the default."""
    allowed = get_args(choices)
    value = extra.get(name) or allowed[0]
    if value not in allowed:
        raise InvalidConnection(
            f"{name} of the connection {connection.conn_id!r} must be {' or '.join(allowed)}, not {value!r}.",
            code="AT-103",
        )
    return value


def _seconds(value: Any, connection: Connection) -> float:
    try:
        return float(value) if value else ClientSettings.timeout
    except (TypeError, ValueError) as error:
        raise InvalidConnection(
            f"timeout of the connection {connection.conn_id!r} must be a number of seconds, not {value!r}.",
            code="AT-104",
        ) from error
