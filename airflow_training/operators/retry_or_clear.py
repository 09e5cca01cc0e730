"""What a retry, or a run after a clear, does with the job of an earlier try: continue with it, or start the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_training.api.status import JobState
from airflow_training.client.client import TrainingClient
from airflow_training.exceptions import JobLost, TrainingError, coded
from airflow_training.following import stats
from airflow_training.operators.claim import Claim, ClaimStore

if TYPE_CHECKING:
    from airflow_training.operators.training import TrainingOperator


async def job_of_earlier_try(task: TrainingOperator, store: ClaimStore) -> Claim | int | None:
    """Find the job to continue with, or the number of the job to start.

    Args:
        task: The task.
        store: The claim of its task instance.

    Returns:
        The claim to continue with; the number of the job to start; None if no earlier try is known.

    Raises:
        TrainingError: The service of the earlier job is unavailable, or does not let us cancel it.
    """
    claim = store.read()
    if claim is None:
        return None
    if claim.over:
        return claim.job_number + 1
    # Airflow raises it for a clear only.
    if store.max_tries > claim.max_tries:
        if task.cancel_on_kill:
            await _cancel(task, claim)
        return claim.job_number + 1
    return await _retry(task, store, claim)


async def _retry(task: TrainingOperator, store: ClaimStore, claim: Claim) -> Claim | int:
    if not task.durable:
        await _cancel(task, claim)
        return claim.job_number + 1
    try:
        async with await claim.connect() as client:
            status = await client.status(claim.job_id)
    except JobLost:
        if not claim.submitted:
            return claim.job_number
        task.log.warning("The service lost the job %s of an earlier try: starting a new one", claim.job_id)
        return claim.job_number + 1
    if status.state in (JobState.FAILED, JobState.CANCELED):
        task.log.info("Starting a new job, since the job %s of an earlier try is %s", claim.job_id, status.state.value)
        return claim.job_number + 1
    stats.reattached()
    task.log.info("Continuing with the job %s of an earlier try, which is %s", claim.job_id, status.state.value)
    return claim if claim.submitted else store.write(claim.accepted())


async def _cancel(task: TrainingOperator, claim: Claim) -> None:
    try:
        await claim.cancel()
    except TrainingError as error:
        # The service of an earlier connection may be gone for good; this try has one of its own.
        if claim.training_conn_id == task.training_conn_id:
            raise
        warning = coded(f"The job {claim.job_id} of an earlier try could not be canceled: {error}", code="AT-416")
        task.log.warning("%s", warning)
    else:
        task.log.info("Canceled the job %s of an earlier try, to start a new one", claim.job_id)


async def unused_job_number(store: ClaimStore, client: TrainingClient) -> int:
    """Find a number whose job does not exist yet.

    If a Dag run was deleted and created again, or the state store was emptied, the service may know earlier jobs of the
    same ids. They are neither this task's result nor this task's to cancel.
    """
    job_number = 1
    while await client.find(store.job_id(job_number)):
        job_number += 1
    return job_number
