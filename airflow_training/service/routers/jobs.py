"""Jobs: submit, status, cancel, log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from airflow_training.jobs.log import NDJSON
from airflow_training.jobs.status import JobStatus
from airflow_training.service.byte_range import file_response
from airflow_training.service.context import Body, ServiceParts, Tenant
from airflow_training.service.description_body import read_description
from airflow_training.service.runners.job_log import RECORDS_FILE, TEXT_FILE
from airflow_training.service.runners.runner import JobKey

router = APIRouter(prefix="/jobs", tags=["jobs"])

JobId = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9-]{1,64}$", description="Chosen by the client, a UUID: 1 to 64 letters, digits or '-'."),
]


class JobList(BaseModel):
    """The jobs of a tenant."""

    jobs: list[JobStatus]


@router.post("/{job_id}", status_code=202)
def submit(job_id: JobId, body: Body, tenant: Tenant, service: ServiceParts, response: Response) -> JobStatus:
    """Submit a job: its description as YAML or JSON, whatever the Content-Type.

    A submit may be repeated: the same id with the same description answers 200 with the job's status.
    """
    status, new = service.jobs.submit(JobKey(tenant, job_id), read_description(body))
    if new:
        service.scheduler.wake()
    else:
        response.status_code = 200
    return status


@router.get("")
def jobs(tenant: Tenant, service: ServiceParts) -> JobList:
    """List the tenant's jobs in the order of their submission."""
    return JobList(jobs=service.jobs.statuses(tenant))


@router.get("/{job_id}")
def job(job_id: JobId, tenant: Tenant, service: ServiceParts) -> JobStatus:
    """Tell the status of a job."""
    return service.jobs.status(JobKey(tenant, job_id))


@router.delete("/{job_id}", status_code=202)
def cancel(job_id: JobId, tenant: Tenant, service: ServiceParts) -> JobStatus:
    """Cancel a job with all its processes; what has ended already stays as it is.

    Its status is CANCELED once the last process has gone, at most some seconds later.
    """
    key = JobKey(tenant, job_id)
    service.jobs.cancel(key)
    service.scheduler.wake()
    return service.jobs.status(key)


@router.get("/{job_id}/logs", response_class=Response)
def logs(job_id: JobId, request: Request, tenant: Tenant, service: ServiceParts) -> Response:
    """Read the log of a job: plain text, or NDJSON with a time for each line when `Accept: application/x-ndjson`.

    Either only ever grows, so `Range: bytes=N-` gives what is new since the last read: 206, or 416 where there
    is nothing new yet.
    """
    key = JobKey(tenant, job_id)
    service.jobs.status(key)
    records = NDJSON in request.headers.get("Accept", "")
    file = service.data.job_state(*key) / (RECORDS_FILE if records else TEXT_FILE)
    media_type = NDJSON if records else "text/plain; charset=utf-8"
    return file_response(
        file, request.headers.get("Range"), media_type, {"Vary": "Accept", "Cache-Control": "no-store"}
    )
