"""What a job used of its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

from airflow_training.api.usage import JobUsage, Share, UsageSample
from airflow_training.service.durable_files import read_json
from airflow_training.service.http.auth import Reader, ServiceParts
from airflow_training.service.http.errors import REFUSALS, refusals
from airflow_training.service.http.jobs import JobId
from airflow_training.service.insights.usage_downsampling import thin
from airflow_training.service.runners.run_folder import SPECIFICATION
from airflow_training.service.runners.runner import JobKey
from airflow_training.service.runners.supervisor.usage_file import read_usage

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=REFUSALS)


@router.get("/{job_id}/usage", operation_id="get_usage", responses=refusals(404, 422))
def usage(
    job_id: JobId,
    client: Reader,
    service: ServiceParts,
    points: Annotated[int, Query(ge=2, le=10_000, description="How many samples are wanted at most.")] = 500,
) -> JobUsage:
    """Tell what a job asked for, what it got, and what it used over time, for as long as the job is kept.

    Where there are more samples than are wanted, the first, the last and the peaks are among those that come. A job
    that has not begun has none.
    """
    key = JobKey(client.tenant, job_id)
    asked = service.jobs.asked(key)
    state = service.data.job_state(*key)
    samples = [UsageSample(**sample._asdict()) for sample in read_usage(state)]
    return JobUsage(
        asked=Share(**asked._asdict()),
        granted=_granted(state) or Share(**service.machine.granted(asked)._asdict()),
        samples=thin(samples, points),
    )


def _granted(state: Path) -> Share | None:
    """What the job got when it was started, of a machine that may have been another one then."""
    if not (specification := read_json(state / SPECIFICATION)):
        return None
    limits = specification["limits"]
    return Share(cpus=limits["cpus"], memory=limits["memory"], gpus=len(specification["gpus"]))
