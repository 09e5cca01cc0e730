"""The result of a job that ended: what it hands on and its metrics, or the error that explains why there is none.

It goes to XCom and into the event of each asset among the task's outlets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.definitions.asset import AssetRef

from airflow_training.api.metrics import METRICS_FILE, merge_metrics, metrics_of_file
from airflow_training.api.model import describe_missing, find_models
from airflow_training.api.status import JobState
from airflow_training.client.storage import JobStorage, Upload
from airflow_training.exceptions import JobCanceled, JobFailed, ModelMissing
from airflow_training.following.follow_job import Outcome
from airflow_training.operators.claim import Claim

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import JsonValue

# Bytes. A file of metrics is not longer; a worker may not have the memory for a longer one.
_LONGEST_METRICS = 1024 * 1024


@dataclass(frozen=True)
class Result:
    """The result of a training, as other tasks see it.

    Attributes:
        job_id: The job.
        status: Its final status, as the service reports it.
        location: The file or folder that it hands on.
        duration: Seconds from the job's start to its end; None if the service does not report both.
        metrics: The metrics that the script reported: name → value.
        parameters: What the task gave of `env`, `environment` and `args`, without secrets: name → value, or the words
            of `args`.
        map_index: The index of a mapped task; -1 for others.
    """

    job_id: str
    status: Mapping[str, Any]
    location: str
    duration: float | None
    metrics: Mapping[str, float]
    parameters: Mapping[str, Any]
    map_index: int


def check_success(outcome: Outcome) -> None:
    """Raise JobCanceled or JobFailed if the job did not succeed."""
    status = outcome.status
    if status.state is JobState.SUCCEEDED:
        return
    if status.state is JobState.CANCELED:
        raise JobCanceled(
            f"The training job {status.name} ({status.job_id}) was canceled: {status.message or 'no reason given'}.",
            code="AT-402",
            job_id=status.job_id,
        )
    end = "\n".join(outcome.last_lines)
    raise JobFailed(
        f"The training job {status.name} ({status.job_id}) failed: {status.message or 'the service gives no reason'}."
        f" Fix the error at the end of its log, then clear the task to train again.\n{end}",
        code="AT-401",
        job_id=status.job_id,
    )


def models_of(job: Claim, keys: Sequence[str]) -> list[str]:
    """Find what a job that succeeded hands on, by its paths in the folder of the job; the first is the result.

    Args:
        job: The job.
        keys: The files in its folder.

    Raises:
        ModelMissing: There is none.
    """
    files = [key.removeprefix(f"{job.folder}/") for key in keys]
    inputs = [*job.inputs, *job.code_files]
    found = find_models(files, job.model, inputs)
    if not found:
        missing = describe_missing(files, job.model, inputs)
        raise ModelMissing(
            f"The training job {job.name} ({job.job_id}) succeeded but left {missing}. Save the model in the"
            " working directory, and set `model` to its path there, or to None for a job without one.",
            code="AT-403",
            job_id=job.job_id,
        )
    return found


async def kept_metrics(
    storage: JobStorage, outcome: Outcome, keys: Sequence[str], folder: str, inputs: Sequence[str]
) -> dict[str, float]:
    """Read the metrics of a job from its `metrics.json`, or store those of its log there.

    Args:
        storage: The storage of the job's folder.
        outcome: How the job ended.
        keys: The files in its folder.
        folder: Its folder.
        inputs: The names of its data there; a `metrics.json` among them is not the job's.
    """
    if METRICS_FILE in inputs:
        return dict(outcome.metrics)
    key = f"{folder}/{METRICS_FILE}"
    if key in keys:
        return merge_metrics(outcome.metrics, metrics_of_file(await _beginning(storage, key)))
    if outcome.metrics:
        await storage.upload(folder, [Upload(METRICS_FILE, json.dumps(dict(outcome.metrics)).encode())])
    return dict(outcome.metrics)


async def _beginning(storage: JobStorage, key: str) -> bytes:
    content = b""
    async with aclosing(storage.read(key)) as pieces:
        async for piece in pieces:
            content += piece
            if len(content) > _LONGEST_METRICS:
                break
    return content


def update_asset_events(context: Context, outlets: Iterable[Any], result: Result) -> None:
    """Add the location of a model, its job, its metrics and the duration of its training to the asset events.

    Args:
        context: The context that the task runs in.
        outlets: The task's outlets; only assets have events.
        result: The result of the job.
    """
    extra: dict[str, JsonValue] = {
        "location": result.location,
        "job_id": result.job_id,
        "metrics": dict(result.metrics),
        "duration": result.duration,
    }
    for outlet in outlets:
        if isinstance(outlet, (Asset, AssetRef)):
            context["outlet_events"][outlet].extra.update(extra)
