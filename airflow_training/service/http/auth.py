"""What the endpoints work with: the parts of the service, the tenant that asks, the body it sent.

Source: RFC 6750 sections 2.1 (the header) and 3 (what is answered to a token that is missing, wrong or not enough).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NoReturn

from fastapi import Depends, Request, Security
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import OAuth2, SecurityScopes
from starlette.requests import ClientDisconnect

from airflow_training.service.accounts.clients import READ, SCOPES, WRITE, Clients, KnownClient
from airflow_training.service.accounts.tokens import Tokens
from airflow_training.service.database.lock import DatabaseLock
from airflow_training.service.errors import ApiError
from airflow_training.service.http.prometheus import Metrics
from airflow_training.service.insights.readers import Programs
from airflow_training.service.runners.runner import Runner
from airflow_training.service.scheduling.capacity import Machine
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.resources import Amount
from airflow_training.service.scheduling.scheduler import Scheduler
from airflow_training.service.scheduling.status_cache import Statuses
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.endpoint import Storage

LARGEST_BODY = 1024 * 1024


@dataclass(frozen=True)
class Service:
    """The parts of a running service."""

    data: DataFolder
    database_lock: DatabaseLock
    clients: Clients
    tokens: Tokens
    machine: Machine
    plans: Mapping[str, Amount]
    jobs: JobTable
    statuses: Statuses
    runner: Runner
    scheduler: Scheduler
    storage: Storage
    metrics: Metrics
    programs: Programs


_oauth2 = OAuth2(
    flows=OAuthFlows(clientCredentials=OAuthFlowClientCredentials(tokenUrl="/oauth/token", scopes=SCOPES)),
    auto_error=False,
)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _client(
    request: Request,
    service: ServiceParts,
    needed: SecurityScopes,
    authorization: Annotated[str | None, Security(_oauth2)],
) -> KnownClient:
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
            "The access token is not valid, or not any more: get a new one from /oauth/token.",
            code="AT-602",
            error="invalid_token",
        )
    request.state.client_id = client.client_id
    if missing := set(needed.scopes) - (claims.scope & client.scope):
        _refuse(
            403,
            f"The access token does not allow this: it lacks the scope {missing.pop()}.",
            code="AT-603",
            error="insufficient_scope",
            scope=needed.scope_str,
        )
    return client


def check_again(request: Request, service: Service) -> None:
    """See that who asked to read may still do so.

    Raises:
        ApiError: The token is not good any more.
    """
    _client(request, service, SecurityScopes([READ]), request.headers.get("Authorization"))


def _refuse(status: int, message: str, *, code: str, **challenge: str) -> NoReturn:
    facts = ", ".join(f'{name}="{value}"' for name, value in {"realm": "training", **challenge}.items())
    raise ApiError(status, message, {"WWW-Authenticate": f"Bearer {facts}"}, code=code)


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST_BODY:
                raise ApiError(
                    413,
                    f"The body is larger than {LARGEST_BODY} bytes: upload files to the storage instead.",
                    code="AT-631",
                )
    except ClientDisconnect as error:
        raise ApiError(400, "The connection ended before the body did.", code="AT-632") from error
    return body


ServiceParts = Annotated[Service, Depends(_service)]
Reader = Annotated[KnownClient, Security(_client, scopes=[READ])]
Writer = Annotated[KnownClient, Security(_client, scopes=[WRITE])]
Body = Annotated[bytes, Depends(_body)]
