"""What a job's outputs show: the curves of its metrics, its model, its resource usage and its packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from airflow_training.api.insights import (
    MAX_POINTS,
    JobEnvironment,
    JobMetrics,
    JobUsage,
    ModelFile,
    ModelSummary,
    UsageSample,
)
from airflow_training.api.naming import INSTALLED_FILE
from airflow_training.api.resources import Resources
from airflow_training.service.errors import ApiError, StorageUnavailable
from airflow_training.service.http.auth import Reader, ServiceDep, ServiceParts
from airflow_training.service.http.errors import COMMON_ERRORS, error_responses
from airflow_training.service.http.jobs import JobId
from airflow_training.service.insights import event_files, signatures
from airflow_training.service.insights.curves import read_curves
from airflow_training.service.insights.downsampling import downsample_usage
from airflow_training.service.insights.job_model import JobModel, find_model
from airflow_training.service.insights.readers import TENSORBOARD_INSTALLED
from airflow_training.service.insights.signatures import MAX_MODEL_BYTES, cached_signatures
from airflow_training.service.runners.run_folder import Spec, UnreadableRecord
from airflow_training.service.runners.supervisor.log_curves import CURVES_FILE
from airflow_training.service.runners.supervisor.secret_masks import Masks
from airflow_training.service.runners.supervisor.usage import read_usage
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.secrets_in_descriptions import without_passwords
from airflow_training.service.storage.job_files import JobFile, files_of

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=COMMON_ERRORS)

# Seconds that a reply waits for the event files to be read; after that it has what was read so far.
_CURVES_TIMEOUT = 1.5

# Seconds to list the files in the store, and to read the signatures.
_STORE_TIMEOUT = 3
_SIGNATURES_TIMEOUT = 3.0

_MAX_FILES = 10_000
# Bytes of the list of installed packages.
_MAX_LIST = 1024 * 1024
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


@router.get("/{job_id}/environment", operation_id="get_environment", responses=error_responses(404, 422))
def environment(job_id: JobId, client: Reader, service: ServiceDep) -> JobEnvironment:
    """Get the Python and the packages that a job ran with; its folder has them as `requirements.installed.txt`.

    The list is made at the end of each job with a `requirements.txt`. The reply is 404 if there is none (yet).
    """
    key = JobKey(client.tenant, job_id)
    service.jobs.status(key)
    state = service.data.job_state(*key)
    with _store_errors():
        files = files_of(state, _STORE_TIMEOUT)
        content = files.read(INSTALLED_FILE, 0, _MAX_LIST) if files else b""
    if not content:
        raise ApiError(
            404,
            f"The job {job_id} has no list of installed packages: one is made at the end of a job with a"
            " requirements.txt.",
            code="AT-616",
        )
    # The URL of a package may contain a password.
    text = Masks(Spec.read(state).masks).mask(content.decode(errors="replace"))
    return JobEnvironment.of(without_passwords(text))


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except StorageUnavailable as error:
        raise ApiError(503, f"The files of the job cannot be read now: try again. {error}", code="AT-646") from error


@router.get("/{job_id}/model", operation_id="get_model", responses=error_responses(404, 422))
async def model(job_id: JobId, client: Reader, service: ServiceDep) -> ModelSummary:
    """Describe what a job hands on, the newest of several versions: its files, and its signatures if it is a model.

    It is the SavedModel of the job, or what `model` in its description names. Signatures are those of a SavedModel, an
    ONNX file or a folder of MLflow; if they cannot be read, `reason` explains why. At most 10,000 files are listed, by
    name. The reply is 404 if there is nothing of that name (yet).
    """
    key = JobKey(client.tenant, job_id)
    await run_in_threadpool(service.jobs.status, key)
    state = service.data.job_state(*key)
    found = missing = await run_in_threadpool(_find_model, state)
    if isinstance(found, str):
        raise ApiError(404, f"The job {job_id} has left {missing}.", code="AT-615")
    reason = _why_unreadable(found)
    if found.described_by and not reason and not await _is_read(service, key, state, found.described_by):
        reason = _STILL_READING
    return await run_in_threadpool(_summary, found, state, reason)


async def _is_read(service: ServiceParts, key: JobKey, state: Path, file: JobFile) -> bool:
    """Read the signatures unless they are cached; False if that takes longer than the timeout."""
    program = signatures.__name__
    # While the program runs, its file holds the result for the case that it is killed.
    if not service.programs.is_running(program, state, file):
        cached = await run_in_threadpool(cached_signatures, state, file)
        if cached:
            return True
    return await service.programs.run(program, key.tenant, state, file, _SIGNATURES_TIMEOUT)


def _find_model(state: Path) -> JobModel | str:
    with _store_errors():
        return find_model(state, _STORE_TIMEOUT)


def _why_unreadable(model: JobModel) -> str:
    if not model.described_by:
        return ""
    if not TENSORBOARD_INSTALLED and model.format != "MLflow":
        return "To read its signatures, the service needs the extra tensorboard."
    if model.described_by.size > MAX_MODEL_BYTES:
        name = PurePosixPath(model.described_by.name).name
        return f"{name} is larger than {MAX_MODEL_BYTES // 1024**2} MiB and is not read."
    return ""


def _summary(model: JobModel, state: Path, reason: str) -> ModelSummary:
    files = [ModelFile(name=name, size=file.size) for name, file in islice(model.files.items(), _MAX_FILES)]
    cached = cached_signatures(state, model.described_by) if model.described_by and not reason else None
    return ModelSummary(
        path=model.path,
        format=model.format,
        files=files,
        signatures=cached.signatures if cached else None,
        reason=cached.reason if cached else reason or (_STILL_READING if model.described_by else ""),
        choice=model.choice,
    )
