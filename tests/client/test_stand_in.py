"""The process that cancels a job when the one that should have done so is gone."""

from __future__ import annotations

import asyncio
import time

import psutil
import pytest

from airflow_training.api.description import JobDescription
from airflow_training.client.cancel_after_exit import StandIn
from airflow_training.client.client import TrainingClient
from airflow_training.client.settings import ClientSettings
from airflow_training.local.service import Credentials, LocalService

pytestmark = pytest.mark.anyio

DESCRIPTION = JobDescription.model_validate(
    {"name": "waits", "execution": {"image": "python:3", "command": "sleep 600", "completionTime": "10m"}}
)


@pytest.mark.parametrize("dismissed", [False, True])
async def test_a_stand_in_cancels_the_job_unless_it_is_dismissed(
    service: LocalService, credentials: Credentials, dismissed: bool
) -> None:
    settings = ClientSettings(service.url, credentials.client_id, credentials.client_secret)
    job_id = f"stand-in-{dismissed}"
    async with TrainingClient(settings) as client:
        await client.submit(job_id, DESCRIPTION)
        stand_in = StandIn(settings, job_id)
        process = psutil.Process(stand_in.pid)
        assert credentials.client_secret not in " ".join(process.cmdline())

        if dismissed:
            stand_in.dismiss()
        else:
            stand_in.begin()
        await asyncio.to_thread(stand_in._process.wait, 60)

        deadline = time.monotonic() + 60
        while not dismissed and not (await client.status(job_id)).state.ended:
            assert time.monotonic() < deadline
        assert (await client.status(job_id)).state.ended is not dismissed
        await client.cancel(job_id)
