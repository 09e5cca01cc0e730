"""A job knows which task it is of, as Airflow's own tasks do."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock
from uuid import uuid4

import pytest

from airflow_training.api.description import JobDescription
from airflow_training.api.parameters import TrainingParameters
from airflow_training.client.client import TrainingClient
from airflow_training.client.settings import ClientSettings
from airflow_training.exceptions import RequestRejected
from airflow_training.operators.claim import Claim
from airflow_training.operators.run import TaskRun

pytestmark = pytest.mark.anyio

MINIMAL: dict[str, Any] = {"job_name": "a", "image": "i", "completion_time": "1h", "script": "print(1)\n"}
DATE = datetime(2026, 11, 30, tzinfo=timezone.utc)


async def submitted(
    values: dict[str, Any],
    map_index: int = -1,
    logical_date: datetime | None = DATE,
    client: AsyncMock | None = None,
) -> dict[str, Any]:
    """The job that a task submits, as it is on the wire."""
    ti = SimpleNamespace(dag_id="nightly", task_id="train", run_id="manual", try_number=2, map_index=map_index)
    context: Any = {
        "ti": ti,
        "task_instance": ti,
        "task": SimpleNamespace(owner="ml"),
        "dag_run": SimpleNamespace(run_id="manual", logical_date=logical_date),
    }
    run = TaskRun(MagicMock(), context)
    run.claim = Claim("1", 1, 0, "a", "training", None, "1h")
    client = client or AsyncMock()
    await run._submit(client, TrainingParameters.read(MINIMAL | values))
    job: dict[str, Any] = client.submit.await_args.args[1].to_wire()["job"]
    return job | {"env": {each["name"]: each["value"] for each in job["env"]}}


async def test_the_variables_name_the_task_and_are_no_arguments() -> None:
    job = await submitted({"env": {"EPOCHS": 5}})

    assert job["env"] == {
        "AIRFLOW_CTX_DAG_OWNER": "ml",
        "AIRFLOW_CTX_DAG_ID": "nightly",
        "AIRFLOW_CTX_TASK_ID": "train",
        "AIRFLOW_CTX_LOGICAL_DATE": "2026-11-30T00:00:00+00:00",
        "AIRFLOW_CTX_TRY_NUMBER": "2",
        "AIRFLOW_CTX_DAG_RUN_ID": "manual",
        "EPOCHS": "5",
    }
    assert job["execution"]["command"] == "python3 train.py --epochs=5"


async def test_a_mapped_task_has_an_index_and_a_run_without_a_date_has_none() -> None:
    env = (await submitted({}, map_index=0, logical_date=None))["env"]

    assert env["AIRFLOW_CTX_MAP_INDEX"] == "0"
    assert "AIRFLOW_CTX_LOGICAL_DATE" not in env


@pytest.mark.parametrize("parameter", ["env", "environment"])
async def test_a_variable_of_the_user_wins(parameter: str) -> None:
    assert (await submitted({parameter: {"AIRFLOW_CTX_DAG_ID": "mine"}}))["env"]["AIRFLOW_CTX_DAG_ID"] == "mine"


async def test_a_retry_that_repeats_a_submit_gets_the_job_of_the_first(settings: ClientSettings) -> None:
    parameters, job_id = TrainingParameters.read(MINIMAL | {"job_name": "repeated"}), str(uuid4())
    async with TrainingClient(settings) as client:
        for try_number in ("1", "2"):
            description = JobDescription.of(parameters, task={"AIRFLOW_CTX_TRY_NUMBER": try_number})
            assert (await client.submit(job_id, description)).job_id == job_id
        assert [job.job_id for job in await client.jobs() if job.name == "repeated"] == [job_id]
        await client.cancel(job_id)


@pytest.mark.parametrize("status", [409, 422])
async def test_a_submit_of_an_earlier_try_that_arrives_late_is_the_job(status: int) -> None:
    client = AsyncMock()
    client.submit.side_effect = RequestRejected("another description", status=status, code="AT-612")

    if status == 409:
        await submitted({}, client=client)
        client.status.assert_awaited_once_with("1")
    else:
        with pytest.raises(RequestRejected):
            await submitted({}, client=client)
