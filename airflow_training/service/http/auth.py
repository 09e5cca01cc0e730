"""Dependencies of the endpoints: the authorized client, the parts of the service, and the body of the request.

Source: RFC 6750 sections 2.1 (the header) and 3 (the replies to a token that is missing, invalid or insufficient).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NoReturn

from fastapi import Depends, Request, Security
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import OAuth2, SecurityScopes
from starlette.requests import ClientDisconnect

from airflow_training.api.resources import Resources
from airflow_training.service.accounts.clients import READ, SCOPES, WRITE, Clients, RegisteredClient
from airflow_training.service.accounts.tokens import Tokens
from airflow_training.service.database.lock import DatabaseLock
from airflow_training.service.errors import ApiError
from airflow_training.service.http.prometheus import ServiceMetrics
from airflow_training.service.insights.readers import ReaderPrograms
from airflow_training.service.reruns import Reruns
from airflow_training.service.scheduling.capacity import Capacity
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.scheduler import Runner, Scheduler
from airflow_training.service.scheduling.status_cache import StatusCache
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.endpoint import StorageEndpoint

MAX_BODY = 1024 * 1024
"""Bytes in the body of a request."""


@dataclass(frozen=True)
class ServiceParts:
    """The parts of a running service."""

    data: DataFolder
    database_lock: DatabaseLock
    clients: Clients
    tokens: Tokens
    capacity: Capacity
    plans: Mapping[str, Resources]
    jobs: JobTable
    statuses: StatusCache
    runner: Runner
    scheduler: Scheduler
    storage: StorageEndpoint
    metrics: ServiceMetrics
    programs: ReaderPrograms
    reruns: Reruns


_oauth2 = OAuth2(
    flows=OAuthFlows(clientCredentials=OAuthFlowClientCredentials(tokenUrl="/oauth/token", scopes=SCOPES)),
    auto_error=False,
)


def _service(request: Request) -> ServiceParts:
    service: ServiceParts = request.app.state.service
    return service


def _client(
    request: Request,
    service: ServiceDep,
    required: SecurityScopes,
    authorization: Annotated[str | None, Security(_oauth2)],
) -> RegisteredClient:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        _refuse(
            401,
            "The request needs an access token in the header Authorization: Bearer; get one from /oauth/token.",
            code="AT-601",
        )
    claims = service.tokens.read(token.strip())
    client = service.clients.current(claims.client_id, claims.generation) if claims else None
    if not claims or not client:
        _refuse(
            401,
            "The access token is invalid, expired or revoked: get a new one from /oauth/token.",
            code="AT-602",
            error="invalid_token",
        )
    request.state.client_id = client.client_id
    if missing := sorted(set(required.scopes) - (claims.scope & client.scope)):
        _refuse(
            403,
            f"The access token does not allow this: it lacks the scope {missing[0]}.",
            code="AT-603",
            error="insufficient_scope",
            scope=required.scope_str,
        )
    return client


def recheck_access(request: Request, service: ServiceParts) -> None:
    """Check that the client still has access, after a long poll.

    Raises:
        ApiError: The token has expired or has been revoked.
    """
    _client(request, service, SecurityScopes([READ]), request.headers.get("Authorization"))


def _refuse(status: int, message: str, *, code: str, **challenge: str) -> NoReturn:
    parameters = ", ".join(f'{name}="{value}"' for name, value in {"realm": "training", **challenge}.items())
    raise ApiError(status, message, {"WWW-Authenticate": f"Bearer {parameters}"}, code=code)


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise ApiError(
                    413,
                    f"The body is larger than {MAX_BODY} bytes: upload files to the storage instead.",
                    code="AT-631",
                )
    except ClientDisconnect as error:
        raise ApiError(400, "The connection closed before the end of the body.", code="AT-632") from error
    return body


ServiceDep = Annotated[ServiceParts, Depends(_service)]
Reader = Annotated[RegisteredClient, Security(_client, scopes=[READ])]
Writer = Annotated[RegisteredClient, Security(_client, scopes=[WRITE])]
Body = Annotated[bytes, Depends(_body)]
