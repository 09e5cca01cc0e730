"""The application: every endpoint of the service."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

import airflow_training
from airflow_training.service.http import curves, jobs, model, oauth, operation, storage, usage, watch
from airflow_training.service.http.access_log import AccessLog
from airflow_training.service.http.auth import Service
from airflow_training.service.http.errors import install_error_handlers
from airflow_training.service.http.openapi_examples import ANSWERS
from airflow_training.service.http.watching import Watch

_ABOUT = """
Trains models: a client gets a token, uploads data and a script to the storage, submits a job, and follows its
status and its log until the SavedModel lies in the job's folder.

Every error has the form `{"error": {"code": "404", "message": "…"}}`, but for those of the token endpoint, which are
OAuth2's. Every reply has an `X-Request-ID`, which is in the access log of the service too.
"""


def create_app(service: Service) -> FastAPI:
    """Make the application of a service."""
    app: FastAPI = FastAPIOffline(
        title="Training service",
        description=_ABOUT,
        version=airflow_training.__version__,
        openapi_url="/api/v2/openapi.json",
        docs_url="/docs",
        redoc_url=None,
        # A redirection would name scheme and host as the service sees them, which are not those of a proxy before it.
        redirect_slashes=False,
    )
    app.state.service = service
    install_error_handlers(app)
    api = APIRouter(prefix="/api/v2")
    api.include_router(storage.router)
    api.include_router(jobs.router)
    api.include_router(curves.router)
    api.include_router(usage.router)
    api.include_router(model.router)
    api.include_router(watch.router)
    app.include_router(api)
    app.include_router(oauth.router)
    app.include_router(operation.router)
    app.add_middleware(AccessLog, metrics=service.metrics)
    app.openapi = partial(_contract, app.openapi)  # type: ignore[method-assign] # the way that FastAPI documents
    return app


def _contract(document: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document, with examples, and with the bodies that FastAPI does not read itself."""
    contract = document()
    for body in (jobs.JobDocument, Watch):
        schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
        contract["components"]["schemas"] |= {**schema.pop("$defs"), body.__name__: schema}
    for name, answer in ANSWERS.items():
        contract["components"]["schemas"][name]["examples"] = [answer]
    return contract
