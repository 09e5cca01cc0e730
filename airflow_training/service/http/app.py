"""The FastAPI application: all endpoints of the service, and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

import airflow_training
from airflow_training.api.rerun import RerunRequest
from airflow_training.api.watch import WatchRequest
from airflow_training.service.http import insights, jobs, oauth, ops, reruns, storage, watch
from airflow_training.service.http.access_log import AccessLog
from airflow_training.service.http.auth import ServiceParts
from airflow_training.service.http.errors import install_error_handlers

_ABOUT = """
Trains models: a client gets a token, uploads data and a script to the storage, submits a job, and follows its
status and its log until the model is in the job's folder.

Errors have the form `{"error": {"code": "404", "message": "…"}}`, except those of the token endpoint, which follow
OAuth2. Every reply has an `X-Request-ID`, which is in the access log of the service too.
"""


def create_app(service: ServiceParts) -> FastAPI:
    """Create the application of a service."""
    app: FastAPI = FastAPIOffline(
        title="Training service",
        description=_ABOUT,
        version=airflow_training.__version__,
        openapi_url="/api/v2/openapi.json",
        docs_url="/docs",
        redoc_url=None,
        # A redirect would have the scheme and the host that the service sees, not those of a proxy in front of it.
        redirect_slashes=False,
    )
    app.state.service = service
    install_error_handlers(app)
    api = APIRouter(prefix="/api/v2")
    api.include_router(storage.router)
    api.include_router(jobs.router)
    api.include_router(insights.router)
    api.include_router(reruns.router)
    api.include_router(watch.router)
    app.include_router(api)
    app.include_router(oauth.router)
    app.include_router(ops.router)
    app.add_middleware(AccessLog, metrics=service.metrics)
    app.openapi = partial(_document, app.openapi)  # type: ignore[method-assign] # as FastAPI's documentation does
    return app


def _document(openapi: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document, with the schemas of the bodies that FastAPI does not parse."""
    document = openapi()
    for body in (jobs.JobDocument, RerunRequest, WatchRequest):
        schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= {**schema.pop("$defs"), body.__name__: schema}
    return document
