"""What whoever runs the service looks at: health and metrics."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from airflow_training.service.http.auth import ServiceParts

router = APIRouter(tags=["operation"])

Word = Literal["ok", "failed"]


class Health(BaseModel):
    """Whether each part of the service works."""

    status: Word
    database: Word
    storage: Word
    runner: Word


@router.get("/healthz", responses={503: {"model": Health, "description": "Something does not work."}})
def health(service: ServiceParts, response: Response) -> Health:
    """Tell whether the service works: its database, its storage, and what starts and follows jobs."""
    parts = {
        "database": service.jobs.answers(),
        "storage": service.storage.answers,
        "runner": service.scheduler.works,
    }
    words: dict[str, Word] = {part: "ok" if works else "failed" for part, works in parts.items()}
    if not all(parts.values()):
        response.status_code = 503
    return Health(status="ok" if all(parts.values()) else "failed", **words)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(service: ServiceParts) -> Response:
    """Tell how many jobs there are, how long they wait and take, and how much is asked: in Prometheus' format."""
    return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
