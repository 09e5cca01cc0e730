"""The application: every endpoint of the service."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

import airflow_training
from airflow_training.service.context import Service
from airflow_training.service.errors_http import install_error_handlers
from airflow_training.service.routers import jobs, oauth, storage


def create_app(service: Service) -> FastAPI:
    """Make the application of a service."""
    app = FastAPI(
        title="Training service",
        version=airflow_training.__version__,
        openapi_url="/api/v2/openapi.json",
        # The pages are loaded from elsewhere, and a service may run where there is no elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    install_error_handlers(app)
    api = APIRouter(prefix="/api/v2")
    api.include_router(storage.router)
    api.include_router(jobs.router)
    app.include_router(api)
    app.include_router(oauth.router)
    app.add_api_route("/healthz", _healthz, tags=["operation"])
    return app


def _healthz() -> dict[str, str]:
    """Tell that the service answers."""
    return {"status": "ok"}
