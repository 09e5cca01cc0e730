"""Jobs: submit, status, cancel, log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from airflow_training.api.description import JobDescription
from airflow_training.api.log import NDJSON
from airflow_training.api.status import JobStatus
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.http.auth import Body, Reader, Service, ServiceParts, Writer
from airflow_training.service.http.byte_range import file_response
from airflow_training.service.http.errors import REFUSALS, refusals
from airflow_training.service.http.request_body import read_description
from airflow_training.service.runners.runner import JobKey
from airflow_training.service.runners.supervisor.job_log import RECORDS_FILE, TEXT_FILE
from airflow_training.service.scheduling.resources import Amount, wanted
from airflow_training.service.settings import JOB_ID

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=REFUSALS)

JobId = Annotated[
    str,
    Path(
        pattern=JOB_ID,
        description="Chosen by the client, a UUID: 1 to 64 letters, digits or '-'.",
        examples=["6f2c1c5e-4f0e-5d1b-9a55-3a1c2b0e7d11"],
    ),
]

_EXAMPLE = {
    "job": {
        "name": "train-census",
        "env": [{"name": "TRAIN_DATA", "value": "adult.data"}, {"name": "EPOCHS", "value": 50}],
        "execution": {
            "image": "tensorflow/tensorflow:2.21.0",
            "command": "pip3 install -r requirements.txt && python3 train.py --train_data=adult.data --epochs=50",
            "completionTime": "20h",
            "resources": {"cpus": 2, "gpus": 0, "memory": 4096},
            "retries": 0,
        },
    }
}
_IN_YAML = """job:
  name: train-census
  execution:
    command: python3 train.py
    completionTime: 10000
    resourcePlanId: basic
"""


_HEADERS_OF_A_LOG = [
    {
        "name": "Range",
        "in": "header",
        "required": False,
        "description": "From which byte on.",
        "schema": {"type": "string", "pattern": r"^bytes=[0-9]{1,12}-$"},
        "example": "bytes=1024-",
    },
]


class JobDocument(BaseModel):
    """A job description as it travels."""

    job: JobDescription


class JobList(BaseModel):
    """The jobs of a tenant."""

    jobs: list[JobStatus]


def _body_of_a_submit() -> dict[str, Any]:
    """What OpenAPI is told of a body that FastAPI does not read: it comes as YAML, and without a Content-Type."""
    schema = {"$ref": "#/components/schemas/JobDocument"}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema, "example": _EXAMPLE},
                "application/yaml": {"schema": schema, "example": _IN_YAML},
            },
        }
    }


@router.post(
    "/{job_id}",
    status_code=202,
    operation_id="submit_job",
    openapi_extra=_body_of_a_submit(),
    responses={
        200: {"model": JobStatus, "description": "It was submitted before, with the same description."},
        **refusals(400, 409, 413, 422, 429),
    },
)
def submit(job_id: JobId, body: Body, client: Writer, service: ServiceParts, response: Response) -> JobStatus:
    """Submit a job: its description as YAML or JSON, whatever the Content-Type.

    A submit may be repeated: the same id with the same description answers 200 with the job's status.
    """
    description = read_description(body)
    asked = _acceptable(description, service)
    status, new = service.jobs.submit(JobKey(client.tenant, job_id), description, asked)
    if new:
        service.scheduler.wake()
    else:
        response.status_code = 200
    return status


@router.get("", operation_id="list_jobs", responses=refusals(422))
def jobs(
    client: Reader,
    service: ServiceParts,
    finished: Annotated[
        int, Query(ge=0, le=10_000, description="How many jobs that have ended are listed at most, the newest.")
    ] = 100,
) -> JobList:
    """List the tenant's jobs in the order of their submission: all that have not ended, and the newest that have."""
    return JobList(jobs=service.jobs.statuses(client.tenant, finished))


@router.get("/{job_id}", operation_id="get_job", responses=refusals(404, 422))
def job(job_id: JobId, client: Reader, service: ServiceParts) -> JobStatus:
    """Tell the status of a job; of one that waits, why."""
    return service.jobs.status(JobKey(client.tenant, job_id))


@router.delete("/{job_id}", status_code=202, operation_id="cancel_job", responses=refusals(404, 422))
def cancel(job_id: JobId, client: Writer, service: ServiceParts) -> JobStatus:
    """Cancel a job with all its processes; what has ended already stays as it is.

    Its status is CANCELED once the last process has gone, at most some seconds later.
    """
    key = JobKey(client.tenant, job_id)
    service.jobs.cancel(key)
    service.scheduler.wake()
    return service.jobs.status(key)


@router.get(
    "/{job_id}/logs",
    response_class=Response,
    operation_id="get_log",
    openapi_extra={"parameters": _HEADERS_OF_A_LOG},
    responses={
        200: {"content": {"text/plain": {}, NDJSON: {}}, "description": "The whole log."},
        206: {"content": {"text/plain": {}, NDJSON: {}}, "description": "The part that was asked for."},
        **refusals(404, 416, 422),
    },
)
def logs(job_id: JobId, request: Request, client: Reader, service: ServiceParts) -> Response:
    """Read the log of a job: plain text, or NDJSON with a time for each line when `Accept: application/x-ndjson`.

    Either only ever grows, so `Range: bytes=N-` gives what is new since the last read: 206, or 416 where there
    is nothing new yet.
    """
    key = JobKey(client.tenant, job_id)
    service.jobs.status(key)
    records = NDJSON in request.headers.get("Accept", "")
    file = service.data.job_state(*key) / (RECORDS_FILE if records else TEXT_FILE)
    media_type = NDJSON if records else "text/plain; charset=utf-8"
    return file_response(
        file, request.headers.get("Range"), media_type, {"Vary": "Accept", "Cache-Control": "no-store"}
    )


def _acceptable(description: JobDescription, service: Service) -> Amount:
    """What the job asks for, where it can ever run here."""
    asked = wanted(description.execution, service.plans, service.machine.capacity)
    gpus = service.machine.capacity.gpus
    if asked.gpus > gpus:
        raise InvalidDescription(
            f"The job asks for {asked.gpus} gpus, and this service has {gpus}: ask for fewer, or have it started with"
            f" --gpus {asked.gpus} on a machine that has them.",
            status=422,
            code="AT-626",
        )
    if objection := service.runner.objection(description):
        raise objection
    return asked
