"""The curves of a job's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from airflow_training.api.curves import MOST_POINTS, JobMetrics
from airflow_training.service.http.auth import Reader, ServiceParts
from airflow_training.service.http.errors import REFUSALS, refusals
from airflow_training.service.http.jobs import JobId
from airflow_training.service.insights import event_files
from airflow_training.service.insights.curves import read_curves
from airflow_training.service.insights.reader_limits import INSTALLED
from airflow_training.service.runners.runner import JobKey
from airflow_training.service.runners.supervisor.log_curves import CURVES_FILE

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=REFUSALS)

# Seconds that a reply waits for what event files tell, before it has only what was read so far.
_PATIENCE = 1.5


@router.get("/{job_id}/metrics", operation_id="get_metrics", response_model=JobMetrics, responses=refusals(404, 422))
async def metrics(
    job_id: JobId,
    client: Reader,
    service: ServiceParts,
    points: Annotated[
        int, Query(ge=2, le=MOST_POINTS, description="How many points of each curve the reply has at most.")
    ] = 1000,
) -> Response:
    """Read the curves of a job's metrics, while it runs and after its end.

    They are told by the lines of its log, and by the TensorBoard event files in its folder where the service has the
    extra `tensorboard`. These are read every ten seconds at most, and what takes longer to read comes with a later
    reply. Of a job on Ray, they are seen at its end.
    """
    key = JobKey(client.tenant, job_id)
    await run_in_threadpool(service.jobs.status, key)
    state = service.data.job_state(*key)
    if INSTALLED and (what := await run_in_threadpool(event_files.what_to_read, state)):
        await service.programs.run(event_files.__name__, key.tenant, state, what, _PATIENCE)
    return Response(
        # FastAPI would look at every point once more, in Python.
        await run_in_threadpool(_document, state, points),
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _document(state: Path, points: int) -> str:
    return read_curves([state / CURVES_FILE, state / event_files.SCALARS_FILE], points).model_dump_json()
