"""Health and metrics of the service."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict

from airflow_training.service.http.auth import ServiceDep

router = APIRouter(tags=["operation"])

Word = Literal["ok", "failed"]


class Health(BaseModel):
    """Whether each part of the service works."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ok", "database": "ok", "storage": "ok", "runner": "ok"}]}
    )

    status: Word
    database: Word
    storage: Word
    runner: Word


@router.get("/healthz", responses={503: {"model": Health, "description": "A part of the service does not work."}})
def health(service: ServiceDep, response: Response) -> Health:
    """Check the database, the storage, and the runner that starts and follows jobs."""
    parts = {
        "database": service.jobs.responds(),
        "storage": service.storage.responds,
        "runner": service.scheduler.works,
    }
    words: dict[str, Word] = {part: "ok" if works else "failed" for part, works in parts.items()}
    if not all(parts.values()):
        response.status_code = 503
    return Health(status="ok" if all(parts.values()) else "failed", **words)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(service: ServiceDep) -> Response:
    """Get numbers and durations of jobs and requests, in the Prometheus format."""
    return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
