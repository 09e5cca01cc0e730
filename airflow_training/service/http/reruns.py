"""The description of a job without its secrets, and reruns: the same files under a new id, with changes."""

from __future__ import annotations

import json

from fastapi import APIRouter, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from airflow_training.api.rerun import RerunRequest
from airflow_training.api.status import JobState, JobStatus
from airflow_training.service.http.auth import Body, Reader, ServiceDep, ServiceParts, Writer
from airflow_training.service.http.errors import COMMON_ERRORS, error_responses, invalid_request
from airflow_training.service.http.jobs import JobDocument, JobId, read_description, runnable
from airflow_training.service.reruns import Rerun, changed
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.secrets_in_descriptions import without_secrets

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=COMMON_ERRORS)

# Seconds that a reply waits for the files to be copied: less than clients wait for a reply.
_WAIT = 2.0

_EXAMPLE = {
    "job_id": "0b5c7d1e-8a4e-4d0e-9d55-5d1c2b0e7d12",
    "changes": {"env": [{"name": "EPOCHS", "value": 100}], "resources": {"cpus": 4}},
}
# FastAPI does not read the body, since it may come without a Content-Type.
_CONTENT = {"schema": {"$ref": "#/components/schemas/RerunRequest"}, "example": _EXAMPLE}


@router.get(
    "/{job_id}/description",
    operation_id="get_description",
    response_model_exclude_none=True,
    responses=error_responses(404, 422),
)
def description(job_id: JobId, client: Reader, service: ServiceDep) -> JobDocument:
    """Get the description of a job as it was submitted, with `***` for each secret.

    Secret are the texts in `masks`, which is left out, the values of variables and of options in the command with a
    name such as `API_KEY`, and passwords in URLs.
    """
    stored = service.jobs.stored(JobKey(client.tenant, job_id))
    return JobDocument(job=without_secrets(stored.description))


@router.post(
    "/{job_id}/rerun",
    status_code=202,
    operation_id="rerun_job",
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": _CONTENT}}},
    responses={
        200: {"model": JobStatus, "description": "The job was submitted before, with the same changes."},
        **error_responses(400, 404, 409, 413, 422, 429, 507),
    },
)
async def rerun(job_id: JobId, body: Body, client: Writer, service: ServiceDep, response: Response) -> JobStatus:
    """Run a job again: submit its description, secrets included, under a new id, with the files that it began with.

    The service copies the files in the storage, as they were when the job's command started. If the job has changed or
    removed one of them, the reply is 409. Of a job whose command never started, all files are copied.

    `submissionTime` in the reply is null while files are being copied: repeat the request until it is set. A rerun can
    be repeated like a submit.
    """
    order = await run_in_threadpool(_read, body, JobKey(client.tenant, job_id), service)
    if await run_in_threadpool(service.jobs.exists, order.key):
        response.status_code = 200
    elif not await service.reruns.run(order, _WAIT):
        doing = f"copying the files of the job {job_id}"
        name = order.description.name
        return JobStatus(job_id=order.key.job_id, name=name, state=JobState.PENDING, message=doing)
    # It exists: this only compares the descriptions, since another request may have submitted it.
    status, _ = await run_in_threadpool(service.jobs.submit, order.key, order.description, order.requested)
    return status


def _read(body: bytes, before: JobKey, service: ServiceParts) -> Rerun:
    """The job that a request describes.

    Raises:
        ApiError: The job before does not exist, or the new one is not valid.
    """
    try:
        request = RerunRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid_request(error.errors()) from None
    stored = service.jobs.stored(before)
    document = changed(before.job_id, stored, request.changes)
    description = read_description(json.dumps({"job": document}).encode())
    return Rerun(
        key=JobKey(before.tenant, request.job_id),
        description=description,
        requested=runnable(description, service),
        job_id=before.job_id,
        stored=stored,
    )
