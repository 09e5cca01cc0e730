"""The SavedModel of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from airflow_training.jobs.model_summary import ModelFile, ModelSummary
from airflow_training.jobs.saved_model import MARKER, find_saved_model
from airflow_training.service import model_signatures
from airflow_training.service.context import Reader, ServiceParts
from airflow_training.service.errors import ApiError, StorageAway
from airflow_training.service.errors_http import REFUSALS, refusals
from airflow_training.service.job_files import JobFile, files_of
from airflow_training.service.model_signatures import LARGEST, known_signatures
from airflow_training.service.programs import Programs
from airflow_training.service.routers.jobs import JobId
from airflow_training.service.runners.runner import JobKey

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=REFUSALS)

_MOST_FILES = 10_000


@router.get("/{job_id}/model", operation_id="get_model", responses=refusals(404, 422))
async def model(job_id: JobId, client: Reader, service: ServiceParts) -> ModelSummary:
    """Describe the SavedModel that a job left, of several versions the newest: its files, and its signatures.

    Where these cannot be read, `reason` says why. The answer is 404 where there is no SavedModel, or none yet.
    """
    key = JobKey(client.tenant, job_id)
    await run_in_threadpool(service.jobs.status, key)
    state = service.data.job_state(*key)
    found = await run_in_threadpool(_files, state)
    folder = find_saved_model(found)
    if folder is None:
        raise ApiError(404, f"The job {job_id} has left no SavedModel: none of its files is {MARKER}.", code="AT-615")
    inside = "" if folder == "." else f"{folder}/"
    listed = [
        ModelFile(name=name.removeprefix(inside), size=file.size)
        for name, file in found.items()
        if name.startswith(inside)
    ]
    told = await _signatures(state, found[f"{inside}{MARKER}"], service.programs)
    return ModelSummary(folder=folder, files=listed[:_MOST_FILES], **told)


def _files(state: Path) -> dict[str, JobFile]:
    try:
        files = files_of(state)
        return {file.name: file for file in files.all()} if files else {}
    except StorageAway as error:
        raise ApiError(503, f"The files of the job cannot be read now: try again. {error}", code="AT-646") from error


async def _signatures(state: Path, marker: JobFile, programs: Programs) -> dict[str, Any]:
    if not model_signatures.INSTALLED:
        return {"reason": "To read its signatures, the service needs the extra tensorboard."}
    if marker.size > LARGEST:
        return {"reason": f"{MARKER} has more than {LARGEST // 1024**2} MiB, and is not read."}
    if not (known := await run_in_threadpool(known_signatures, state, marker)):
        await programs.run(model_signatures.__name__, state)
        known = await run_in_threadpool(known_signatures, state, marker)
    if not known:
        return {"reason": f"{MARKER} could not be read: it changes, or takes too much time or memory."}
    return {"signatures": known["signatures"], "reason": known["reason"]}
