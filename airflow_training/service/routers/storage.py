"""The storage of a tenant."""

from __future__ import annotations

from fastapi import APIRouter, Request

from airflow_training.service.context import ServiceParts, Tenant
from airflow_training.service.storage import StorageAccess

router = APIRouter(tags=["storage"])


@router.get("/storage")
@router.post("/storage", status_code=202)
def storage(request: Request, tenant: Tenant, service: ServiceParts) -> StorageAccess:
    """Tell where the tenant's S3 endpoint is, and its keys.

    Pending becomes Ready once the endpoint has really answered a request for the bucket `data`; Error comes with
    a message. The endpoint starts with the service, so POST, which clients start it with, has nothing to do, and
    GET needs no POST before it: clients that begin with either find their storage.
    """
    return service.storage.access(tenant, request.url.hostname or "")
