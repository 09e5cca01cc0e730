"""What comes of a job that has ended: a SavedModel, or an error that says why there is none."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_training.client.training import TrainingClient
from airflow_training.exceptions import JobCanceled, JobFailed, SavedModelMissing
from airflow_training.jobs.saved_model import find_saved_model
from airflow_training.jobs.status import JobState
from airflow_training.reporting import Outcome


def check_success(outcome: Outcome) -> None:
    """Raise JobCanceled or JobFailed where the job did not end well."""
    status = outcome.status
    if status.state is JobState.SUCCEEDED:
        return
    job = f"The training job {status.name} ({status.job_id})"
    if status.state is JobState.CANCELED:
        raise JobCanceled(f"{job} was canceled: {status.message or 'no reason given'}.", job_id=status.job_id)
    end = "\n".join(outcome.last_lines)
    raise JobFailed(
        f"{job} failed: {status.message or 'the service gives no reason'}. Mend what the end of its log tells, then"
        f" clear the task to train again:\n{end}",
        job_id=status.job_id,
    )


async def saved_model(client: TrainingClient, outcome: Outcome, folder: str, inputs: Sequence[str]) -> str:
    """Find the folder of the SavedModel that a job left in its own; raises SavedModelMissing.

    Args:
        client: The service.
        outcome: How the job ended.
        folder: Its folder.
        inputs: The names of its data there, which may hold a model too: one to begin with.
    """
    status = outcome.status
    storage = await client.storage()
    given = tuple(f"{folder}/{name}/" for name in inputs)
    found = find_saved_model(key for key in await storage.keys(folder) if not f"{key}/".startswith(given))
    if not found:
        raise SavedModelMissing(
            f"The training job {status.name} ({status.job_id}) succeeded but left no SavedModel: no saved_model.pb"
            f" lies below {folder}, outside of the data it was given. The script must save its model in its working"
            " directory.",
            job_id=status.job_id,
        )
    return found
