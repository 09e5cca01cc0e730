"""What the endpoints work with: the parts of the service, the tenant that asks, the body it sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from airflow_training.service.clients import Clients
from airflow_training.service.errors import ApiError
from airflow_training.service.job_table import JobTable
from airflow_training.service.scheduler import Scheduler
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage import Storage
from airflow_training.service.tokens import Tokens

LARGEST_BODY = 1024 * 1024


@dataclass(frozen=True)
class Service:
    """The parts of a running service."""

    data: DataFolder
    clients: Clients
    tokens: Tokens
    jobs: JobTable
    scheduler: Scheduler
    storage: Storage


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _tenant(request: Request, service: ServiceParts) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    tenant = service.tokens.tenant_of(token.strip()) if scheme.lower() == "bearer" else None
    if tenant is None:
        raise ApiError(
            401,
            "The request needs a valid access token in the header Authorization: Bearer; get one from /oauth/token.",
            {"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )
    return tenant


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise ApiError(413, f"The body is larger than {LARGEST_BODY} bytes: upload files to the storage instead.")
    return body


ServiceParts = Annotated[Service, Depends(_service)]
Tenant = Annotated[str, Depends(_tenant)]
Body = Annotated[bytes, Depends(_body)]
