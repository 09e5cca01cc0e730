"""What comes of a job that has ended: a SavedModel and its metrics, or an error that says why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from airflow_training.api.metrics import METRICS_FILE, metrics_of_file, with_metrics
from airflow_training.api.saved_model import find_saved_models
from airflow_training.api.status import JobState
from airflow_training.client.storage import JobStorage, Upload
from airflow_training.exceptions import JobCanceled, JobFailed, SavedModelMissing
from airflow_training.following.follow_job import Outcome

# Bytes: no file of metrics is longer, and a worker has no memory for one that is.
_LONGEST_METRICS = 1024 * 1024


@dataclass(frozen=True)
class Result:
    """What the next task gets, and the event of an asset.

    Attributes:
        job_id: The job.
        status: Its final status, as the service told it.
        location: Where its SavedModel lies.
        duration: Seconds from the job's start to its end; None where the service did not tell both.
        metrics: How good the model is, by the script's own account: name → value.
    """

    job_id: str
    status: Mapping[str, Any]
    location: str
    duration: float | None
    metrics: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON can hold it."""
        return asdict(self)


def check_success(outcome: Outcome) -> None:
    """Raise JobCanceled or JobFailed where the job did not end well."""
    status = outcome.status
    if status.state is JobState.SUCCEEDED:
        return
    job = f"The training job {status.name} ({status.job_id})"
    if status.state is JobState.CANCELED:
        raise JobCanceled(
            f"{job} was canceled: {status.message or 'no reason given'}.", code="AT-402", job_id=status.job_id
        )
    end = "\n".join(outcome.last_lines)
    raise JobFailed(
        f"{job} failed: {status.message or 'the service gives no reason'}. Mend what the end of its log tells, then"
        f" clear the task to train again.\n{end}",
        code="AT-401",
        job_id=status.job_id,
    )


def saved_models(outcome: Outcome, keys: Sequence[str], folder: str, inputs: Sequence[str]) -> list[str]:
    """Find the folders of the SavedModels that a job left in its own, first the one to hand on.

    Args:
        outcome: How the job ended.
        keys: The files in its folder.
        folder: Its folder.
        inputs: The names of its data there, which may hold a model too: one to begin with.

    Raises:
        SavedModelMissing: There is none.
    """
    status = outcome.status
    given = tuple(f"{folder}/{name}/" for name in inputs)
    found = find_saved_models(key for key in keys if not f"{key}/".startswith(given))
    if not found:
        raise SavedModelMissing(
            f"The training job {status.name} ({status.job_id}) succeeded but left no SavedModel: no saved_model.pb"
            f" lies below {folder}, outside of the data it was given. The script must save its model in its working"
            " directory.",
            code="AT-403",
            job_id=status.job_id,
        )
    return found


async def kept_metrics(
    storage: JobStorage, outcome: Outcome, keys: Sequence[str], folder: str, inputs: Sequence[str]
) -> dict[str, float]:
    """Read the metrics of a job out of `metrics.json`, or keep there those that its log told.

    Args:
        storage: Where the job's folder lies.
        outcome: How the job ended.
        keys: The files in its folder.
        folder: Its folder.
        inputs: The names of its data there; a `metrics.json` among them is not the one that it wrote.
    """
    if METRICS_FILE in inputs:
        return dict(outcome.metrics)
    key = f"{folder}/{METRICS_FILE}"
    if key in keys:
        return with_metrics(outcome.metrics, metrics_of_file(await _beginning(storage, key)))
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
