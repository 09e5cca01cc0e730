"""What a job's outputs show: the curves of its metrics, its SavedModel, and its resource usage."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from airflow_training.api.insights import MAX_POINTS, JobMetrics, JobUsage, ModelFile, ModelSummary, UsageSample
from airflow_training.api.resources import Resources
from airflow_training.api.saved_model import MARKER, find_saved_model
from airflow_training.service.errors import ApiError, StorageUnavailable
from airflow_training.service.http.auth import Reader, ServiceDep, ServiceParts
from airflow_training.service.http.errors import COMMON_ERRORS, error_responses
from airflow_training.service.http.jobs import JobId
from airflow_training.service.insights import event_files, signatures
from airflow_training.service.insights.curves import read_curves
from airflow_training.service.insights.downsampling import downsample_usage
from airflow_training.service.insights.readers import TENSORBOARD_INSTALLED
from airflow_training.service.insights.signatures import MAX_MODEL_BYTES, cached_signatures
from airflow_training.service.runners.run_folder import Spec, UnreadableRecord
from airflow_training.service.runners.supervisor.log_curves import CURVES_FILE
from airflow_training.service.runners.supervisor.usage import read_usage
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.storage.job_files import JobFile, files_of

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=COMMON_ERRORS)

# Seconds that a reply waits for the event files to be read; after that it has what was read so far.
_CURVES_TIMEOUT = 1.5

# Seconds to list the files in the store, and to read the signatures.
_STORE_TIMEOUT = 3
_SIGNATURES_TIMEOUT = 3.0

_MAX_FILES = 10_000
_STILL_READING = "The signatures are still being read: try again."


@router.get(
    "/{job_id}/metrics", operation_id="get_metrics", response_model=JobMetrics, responses=error_responses(404, 422)
)
async def metrics(
    job_id: JobId,
    client: Reader,
    service: ServiceDep,
    points: Annotated[int, Query(ge=2, le=MAX_POINTS, description="Maximum number of points per curve.")] = 1000,
) -> Response:
    """Get the curves of a job's metrics, while it runs and after its end.

    They come from the lines of its log and, if the service has the extra `tensorboard`, from the TensorBoard event
    files in its folder. Event files are read at most every ten seconds; if reading takes longer, a later reply has the
    rest. Event files of a job on Ray are read at its end.
    """
    key = JobKey(client.tenant, job_id)
    await run_in_threadpool(service.jobs.status, key)
    state = service.data.job_state(*key)
    if TENSORBOARD_INSTALLED and (phase := await run_in_threadpool(event_files.unread_phase, state)):
        await service.programs.run(event_files.__name__, key.tenant, state, phase, _CURVES_TIMEOUT)
    return Response(
        # FastAPI would validate every point again, in Python.
        await run_in_threadpool(_curves_json, state, points),
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _curves_json(state: Path, points: int) -> str:
    return read_curves([state / CURVES_FILE, state / event_files.SCALARS_FILE], points).model_dump_json()


@router.get("/{job_id}/usage", operation_id="get_usage", responses=error_responses(404, 422))
def usage(
    job_id: JobId,
    client: Reader,
    service: ServiceDep,
    points: Annotated[int, Query(ge=2, le=10_000, description="Maximum number of samples.")] = 500,
) -> JobUsage:
    """Get the resources that a job requested, those allocated to it, and its usage over time.

    Longer series are downsampled to `points`; the first sample, the last and the peaks are kept. A job that has not
    started has no samples.
    """
    key = JobKey(client.tenant, job_id)
    requested = service.jobs.requested(key)
    state = service.data.job_state(*key)
    samples = [UsageSample(**sample._asdict()) for sample in read_usage(state)]
    return JobUsage(
        requested=requested,
        allocated=_allocated(state) or service.capacity.allocation(requested),
        samples=downsample_usage(samples, points),
    )


def _allocated(state: Path) -> Resources | None:
    """The allocation at the start of the job: the machine may have had other resources then."""
    try:
        spec = Spec.read(state)
    except UnreadableRecord:
        return None
    return Resources(spec.limits.cpus, spec.limits.memory, len(spec.gpus))


@router.get("/{job_id}/model", operation_id="get_model", responses=error_responses(404, 422))
async def model(job_id: JobId, client: Reader, service: ServiceDep) -> ModelSummary:
    """Describe the SavedModel of a job, the newest of several versions: its files and its signatures.

    At most 10,000 files are listed, by name. If the signatures cannot be read, `reason` explains why. The reply is 404
    if there is no SavedModel (yet).
    """
    key = JobKey(client.tenant, job_id)
    await run_in_threadpool(service.jobs.status, key)
    state = service.data.job_state(*key)
    found = await run_in_threadpool(_find_model, state)
    if found is None:
        raise ApiError(
            404, f"The job {job_id} has left no SavedModel: none of its files is saved_model.pb.", code="AT-615"
        )
    summary, marker = found
    reason = _why_unreadable(marker)
    if not reason and not await _is_read(service, key, state, marker):
        reason = _STILL_READING
    return await run_in_threadpool(_with_signatures, summary, state, marker, reason)


async def _is_read(service: ServiceParts, key: JobKey, state: Path, marker: JobFile) -> bool:
    """Read the signatures unless they are cached; False if that takes longer than the timeout."""
    program = signatures.__name__
    # While the program runs, its file holds the result for the case that it is killed.
    if not service.programs.is_running(program, state, marker):
        cached = await run_in_threadpool(cached_signatures, state, marker)
        if cached:
            return True
    return await service.programs.run(program, key.tenant, state, marker, _SIGNATURES_TIMEOUT)


def _find_model(state: Path) -> tuple[ModelSummary, JobFile] | None:
    """The model without its signatures, and the file to read these from."""
    try:
        files = files_of(state, _STORE_TIMEOUT)
        found = {file.name: file for file in files.all()} if files else {}
    except StorageUnavailable as error:
        raise ApiError(503, f"The files of the job cannot be read now: try again. {error}", code="AT-646") from error
    if (folder := find_saved_model(found)) is None:
        return None
    inside = "" if folder == "." else f"{folder}/"
    listed = islice((file for name, file in found.items() if name.startswith(inside)), _MAX_FILES)
    described = [ModelFile(name=file.name.removeprefix(inside), size=file.size) for file in listed]
    return ModelSummary(folder=folder, files=described), found[f"{inside}{MARKER}"]


def _why_unreadable(marker: JobFile) -> str:
    if not TENSORBOARD_INSTALLED:
        return "To read its signatures, the service needs the extra tensorboard."
    if marker.size > MAX_MODEL_BYTES:
        return f"{MARKER} is larger than {MAX_MODEL_BYTES // 1024**2} MiB and is not read."
    return ""


def _with_signatures(summary: ModelSummary, state: Path, marker: JobFile, reason: str) -> ModelSummary:
    if not reason and (cached := cached_signatures(state, marker)):
        return summary.model_copy(update={"signatures": cached.signatures, "reason": cached.reason})
    return summary.model_copy(update={"reason": reason or _STILL_READING})
