"""A task that resumes, and a training, without an Airflow."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

from airflow_training.api.description import JobDescription
from airflow_training.api.naming import job_folder
from airflow_training.api.parameters import TrainingParameters
from airflow_training.api.status import JobState
from airflow_training.client.client import TrainingClient
from airflow_training.client.settings import ClientSettings
from airflow_training.operators.claim import Claim
from airflow_training.operators.files import uploads
from airflow_training.operators.training import TrainingOperator


def resume(operator: TrainingOperator, status: str, claim: Claim, metrics: Mapping[str, float] | None = None) -> Any:
    """Resume a task on a new worker, as Airflow does after the trigger's event; returns the result."""
    outcome = {"job_id": claim.job_id, "status": {"job_id": claim.job_id, "status": status}}
    event = {**outcome, "last_lines": [], "metrics": metrics or {}}
    context: Any = {"ti": Mock(map_index=-1), "task_state_store": Mock()}
    operator.execute_complete(context, event, asdict(claim))
    return context["ti"].xcom_push.call_args_list[-1].args[1]


async def train(settings: ClientSettings, parameters: TrainingParameters, folder: Path) -> tuple[JobState, str]:
    """Upload the files of a training, run it to its end, and return its state and its log."""
    job_id = str(uuid4())
    async with TrainingClient(settings) as client:
        await (await client.storage()).upload(job_folder(parameters.job_name, job_id), uploads(parameters, folder))
        await client.submit(job_id, JobDescription.of(parameters))
        while not (status := await client.status(job_id)).state.ended:  # noqa: ASYNC110 - the service is another process
            await asyncio.sleep(0.1)
        return status.state, (await client.log(job_id, 0)).content.decode()
