"""The storage of a tenant."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from airflow_training.api.storage import StorageAccess
from airflow_training.service.http.auth import ServiceDep, Writer
from airflow_training.service.http.errors import COMMON_ERRORS

router = APIRouter(tags=["storage"], responses=COMMON_ERRORS)


@router.get("/storage", operation_id="get_storage")
@router.post("/storage", status_code=202, operation_id="create_storage")
def storage(request: Request, response: Response, client: Writer, service: ServiceDep) -> StorageAccess:
    """Get the tenant's S3 endpoint, and the client's keys for it.

    The status is Pending until the endpoint has answered a request for the bucket `data`, then Ready; Error comes with
    a message. The endpoint starts with the service: POST exists for clients that create their storage first, and
    changes nothing. An endpoint without a scheme uses TLS.
    """

    response.headers["Cache-Control"] = "no-store"
    return service.storage.access(client, request.url.hostname or "")
