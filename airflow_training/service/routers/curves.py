"""The curves of a job's metrics."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from airflow_training.jobs.curves import MOST_POINTS, JobMetrics
from airflow_training.service.context import Reader, ServiceParts
from airflow_training.service.curves import read_curves
from airflow_training.service.errors_http import REFUSALS, refusals
from airflow_training.service.routers.jobs import JobId
from airflow_training.service.runners.log_curves import CURVES_FILE
from airflow_training.service.runners.runner import JobKey

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=REFUSALS)


@router.get("/{job_id}/metrics", operation_id="get_metrics", response_model=JobMetrics, responses=refusals(404, 422))
def metrics(
    job_id: JobId,
    client: Reader,
    service: ServiceParts,
    points: Annotated[
        int, Query(ge=2, le=MOST_POINTS, description="How many points of each curve the reply has at most.")
    ] = 1000,
) -> Response:
    """Read the curves of a job's metrics, while it runs and after its end."""
    key = JobKey(client.tenant, job_id)
    service.jobs.status(key)
    state = service.data.job_state(*key)
    curves = read_curves([state / CURVES_FILE], points)
    # FastAPI would look at every point once more, in Python.
    return Response(curves.model_dump_json(), media_type="application/json", headers={"Cache-Control": "no-store"})
