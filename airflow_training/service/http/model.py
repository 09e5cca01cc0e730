"""The SavedModel of a job."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from airflow_training.api.model_summary import ModelFile, ModelSummary
from airflow_training.api.saved_model import MARKER, find_saved_model
from airflow_training.service.errors import ApiError, StorageAway
from airflow_training.service.http.auth import Reader, Service, ServiceParts
from airflow_training.service.http.errors import REFUSALS, refusals
from airflow_training.service.http.jobs import JobId
from airflow_training.service.insights import signatures
from airflow_training.service.insights.reader_limits import INSTALLED
from airflow_training.service.insights.signatures import LARGEST, known_signatures
from airflow_training.service.runners.runner import JobKey
from airflow_training.service.storage.job_files import JobFile, files_of

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=REFUSALS)

_MOST_FILES = 10_000

# Seconds that the store may take to name the files, and the signatures to be read.
_STORE_PATIENCE = 3
_PATIENCE = 3.0


@router.get("/{job_id}/model", operation_id="get_model", responses=refusals(404, 422))
async def model(job_id: JobId, client: Reader, service: ServiceParts) -> ModelSummary:
    """Describe the SavedModel that a job left, of several versions the newest: its files, and its signatures.

    Of the files, the first 10,000 by name are listed. Where the signatures cannot be read, `reason` says why. The
    answer is 404 where there is no SavedModel, or none yet.
    """
    key = JobKey(client.tenant, job_id)
    await run_in_threadpool(service.jobs.status, key)
    state = service.data.job_state(*key)
    found = await run_in_threadpool(_find, state)
    if found is None:
        raise ApiError(404, f"The job {job_id} has left no SavedModel: none of its files is {MARKER}.", code="AT-615")
    summary, marker = found
    reason = _not_to_be_read(marker)
    if not reason and not await _is_read(service, key, state, marker):
        reason = "The signatures are still being read: ask again."
    return await run_in_threadpool(_with_signatures, summary, state, marker, reason)


async def _is_read(service: Service, key: JobKey, state: Path, marker: JobFile) -> bool:
    """Whether all is known of the signatures that will be; has them read if need be."""
    program = signatures.__name__
    # While the program works, its file holds what is to stay if it is killed.
    if not service.programs.is_running(program, state, marker):
        known = await run_in_threadpool(known_signatures, state, marker)
        if known:
            return True
    return await service.programs.run(program, key.tenant, state, marker, _PATIENCE)


def _find(state: Path) -> tuple[ModelSummary, JobFile] | None:
    """The model without its signatures, and the file that these are read from."""
    try:
        files = files_of(state, _STORE_PATIENCE)
        found = {file.name: file for file in files.all()} if files else {}
    except StorageAway as error:
        raise ApiError(503, f"The files of the job cannot be read now: try again. {error}", code="AT-646") from error
    if (folder := find_saved_model(found)) is None:
        return None
    inside = "" if folder == "." else f"{folder}/"
    listed = islice((file for name, file in found.items() if name.startswith(inside)), _MOST_FILES)
    described = [ModelFile(name=file.name.removeprefix(inside), size=file.size) for file in listed]
    return ModelSummary(folder=folder, files=described), found[f"{inside}{MARKER}"]


def _not_to_be_read(marker: JobFile) -> str:
    if not INSTALLED:
        return "To read its signatures, the service needs the extra tensorboard."
    if marker.size > LARGEST:
        return f"{MARKER} has more than {LARGEST // 1024**2} MiB, and is not read."
    return ""


def _with_signatures(summary: ModelSummary, state: Path, marker: JobFile, reason: str) -> ModelSummary:
    if not reason and (known := known_signatures(state, marker)):
        return summary.model_copy(update={"signatures": known.signatures, "reason": known.reason})
    return summary.model_copy(update={"reason": reason or "The signatures are still being read: ask again."})
