"""The storage of a tenant."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from airflow_training.service.http.auth import ServiceParts, Writer
from airflow_training.service.http.errors import REFUSALS
from airflow_training.service.storage.endpoint import StorageAccess

router = APIRouter(tags=["storage"], responses=REFUSALS)


@router.get("/storage", operation_id="get_storage")
@router.post("/storage", status_code=202, operation_id="create_storage")
def storage(request: Request, response: Response, client: Writer, service: ServiceParts) -> StorageAccess:
    """Tell where the tenant's S3 endpoint is, and the client's keys for it.

    Pending becomes Ready once the endpoint has really answered a request for the bucket `data`; Error comes with
    a message. The endpoint starts with the service, so POST, which clients start it with, has nothing to do, and
    GET needs no POST before it: clients that begin with either find their storage. An endpoint without a scheme is
    one that speaks TLS.
    """
    response.headers["Cache-Control"] = "no-store"
    return service.storage.access(client, request.url.hostname or "")
