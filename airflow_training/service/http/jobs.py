"""Jobs: submit, status, list, cancel, and the log with its byte ranges."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.config import JsonDict

from airflow_training.api.description import JobDescription, read_document, validation_errors
from airflow_training.api.log import NDJSON
from airflow_training.api.naming import JOB_ID
from airflow_training.api.resources import Resources
from airflow_training.api.status import JobList, JobStatus
from airflow_training.service.errors import ApiError, InvalidDescription
from airflow_training.service.http.auth import Body, Reader, ServiceDep, ServiceParts, Writer
from airflow_training.service.http.errors import COMMON_ERRORS, error_responses
from airflow_training.service.runners.supervisor.job_log import RECORDS_FILE, TEXT_FILE
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.scheduling.resources import requested_resources

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=COMMON_ERRORS)

JobId = Annotated[
    str,
    PathParameter(
        pattern=JOB_ID,
        description="Chosen by the client, preferably a UUID: 1 to 64 letters, digits or '-'.",
        examples=["6f2c1c5e-4f0e-5d1b-9a55-3a1c2b0e7d11"],
    ),
]

_CHUNK = 256 * 1024

_EXAMPLE: JsonDict = {
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
_YAML_EXAMPLE = """job:
  name: train-census
  execution:
    command: python3 train.py
    completionTime: 10000
    resourcePlanId: basic
"""
# FastAPI does not parse the body: it may be YAML, and may lack a Content-Type.
_SCHEMA = {"$ref": "#/components/schemas/JobDocument"}
_CONTENT = {
    "application/json": {"schema": _SCHEMA, "example": _EXAMPLE},
    "application/yaml": {"schema": _SCHEMA, "example": _YAML_EXAMPLE},
}
_RANGE_PARAMETER = {
    "name": "Range",
    "in": "header",
    "required": False,
    "description": "The first byte to return.",
    "schema": {"type": "string", "pattern": r"^bytes=[0-9]{1,12}-$"},
    "example": "bytes=1024-",
}


class JobDocument(BaseModel):
    """The body of a submit."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    job: JobDescription


@router.post(
    "/{job_id}",
    status_code=202,
    operation_id="submit_job",
    openapi_extra={"requestBody": {"required": True, "content": _CONTENT}},
    responses={
        200: {"model": JobStatus, "description": "The job was submitted before, with the same description."},
        **error_responses(400, 409, 413, 422, 429),
    },
)
def submit(job_id: JobId, body: Body, client: Writer, service: ServiceDep, response: Response) -> JobStatus:
    """Submit a job: its description as YAML or JSON, with any Content-Type.

    A submit can be repeated: if a job has the same id and the same description, the reply is 200 with its status.
    """
    description = read_description(body)
    requested = runnable(description, service)
    status, new = service.jobs.submit(JobKey(client.tenant, job_id), description, requested)
    if new:
        service.scheduler.wake()
    else:
        response.status_code = 200
    return status


@router.get("", operation_id="list_jobs", responses=error_responses(422))
def jobs(
    client: Reader,
    service: ServiceDep,
    finished: Annotated[
        int, Query(ge=0, le=10_000, description="Maximum number of ended jobs to list; the newest are listed.")
    ] = 100,
) -> JobList:
    """List the tenant's jobs in the order of submission: all that have not ended, and the newest that have."""
    return JobList(jobs=service.jobs.statuses(client.tenant, finished))


@router.get("/{job_id}", operation_id="get_job", responses=error_responses(404, 422))
def job(job_id: JobId, client: Reader, service: ServiceDep) -> JobStatus:
    """Get the status of a job; if it is waiting, its message has the reason."""
    return service.jobs.status(JobKey(client.tenant, job_id))


@router.delete("/{job_id}", status_code=202, operation_id="cancel_job", responses=error_responses(404, 422))
def cancel(job_id: JobId, client: Writer, service: ServiceDep) -> JobStatus:
    """Cancel a job with all its processes; a job that has ended does not change.

    Its status becomes CANCELED when its last process has ended, at most a few seconds later.
    """
    key = JobKey(client.tenant, job_id)
    service.jobs.cancel(key)
    service.scheduler.wake()
    return service.jobs.status(key)


@router.get(
    "/{job_id}/logs",
    response_class=Response,
    operation_id="get_log",
    openapi_extra={"parameters": [_RANGE_PARAMETER]},
    responses={
        200: {"content": {"text/plain": {}, NDJSON: {}}, "description": "The whole log."},
        206: {"content": {"text/plain": {}, NDJSON: {}}, "description": "The requested part."},
        **error_responses(404, 416, 422),
    },
)
def logs(job_id: JobId, request: Request, client: Reader, service: ServiceDep) -> Response:
    """Get the log of a job: plain text, or NDJSON with a time for each line if `Accept: application/x-ndjson`.

    Both are append-only, so `Range: bytes=N-` returns what is new since the last read: 206, or 416 if there is nothing
    new yet.
    """
    key = JobKey(client.tenant, job_id)
    service.jobs.status(key)
    records = NDJSON in request.headers.get("Accept", "")
    file = service.data.job_state(*key) / (RECORDS_FILE if records else TEXT_FILE)
    media_type = NDJSON if records else "text/plain; charset=utf-8"
    return _file_response(
        file, request.headers.get("Range"), media_type, {"Vary": "Accept", "Cache-Control": "no-store"}
    )


def read_description(body: bytes) -> JobDescription:
    """Read a job description.

    Raises:
        InvalidDescription: With all validation errors.
    """
    try:
        description = JobDescription.from_wire(read_document(body))
    except ValidationError as error:
        errors = "; ".join(validation_errors(error))
        raise InvalidDescription(f"The job description is not valid: {errors}.", status=422, code="AT-621") from None
    except ValueError as error:
        raise InvalidDescription(
            f"The job description is neither YAML nor JSON: {error}.", status=400, code="AT-622"
        ) from None
    if "\0" in description.execution.command:
        raise InvalidDescription(
            "The job description has a NUL character in execution.command.", status=422, code="AT-623"
        )
    try:
        description.model_dump_json()
    except ValueError:
        # JSON can escape one half of a surrogate pair; no file, database or process can hold it.
        raise InvalidDescription(
            "The job description has an unpaired surrogate character.", status=422, code="AT-624"
        ) from None
    return description


def runnable(description: JobDescription, service: ServiceParts) -> Resources:
    """The requested resources of a job.

    Raises:
        InvalidDescription: It can never run here.
    """
    requested = requested_resources(description.execution, service.plans, service.capacity.total)
    available = service.capacity.total.gpus
    if requested.gpus > available:
        raise InvalidDescription(
            f"The job requests {requested.gpus} GPUs, but this service has {available}: request fewer, or start the"
            f" service with --gpus {requested.gpus} on a machine that has them.",
            status=422,
            code="AT-626",
        )
    if validation_error := service.runner.validation_error(description):
        raise validation_error
    return requested


def _file_response(path: Path, range_header: str | None, media_type: str, headers: Mapping[str, str]) -> Response:
    """Answer with a file that may grow meanwhile, or with a range of it; a missing file is an empty one.

    Starlette's FileResponse sends up to the end that the file has by then, which is more than its Content-Length.
    Source: RFC 9110 section 14.

    Raises:
        ApiError: 416, the range begins at the end of the file or after it.
    """
    size = path.stat().st_size if path.exists() else 0
    headers = {**headers, "Accept-Ranges": "bytes"}
    range_ = _parse_range(range_header, size)
    if range_ is None:
        headers["Content-Length"] = str(size)
        return StreamingResponse(_chunks(path, 0, size), 200, headers, media_type)
    start, end = range_
    if start >= size:
        raise ApiError(
            416,
            f"There is nothing at byte {start} yet: the log has {size} bytes.",
            {"Content-Range": f"bytes */{size}"},
            code="AT-614",
        )
    headers["Content-Length"] = str(end - start)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(_chunks(path, start, end), 206, headers, media_type)


def _parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the byte after the last; None for the whole file, unless there is exactly one byte range."""
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", (header or "").replace(" ", ""))
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return (max(size - int(last), 0) if int(last) else size, size)
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def _chunks(path: Path, start: int, end: int) -> Iterator[bytes]:
    if start == end:
        return
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (chunk := file.read(min(_CHUNK, end - start))):
            start += len(chunk)
            yield chunk
