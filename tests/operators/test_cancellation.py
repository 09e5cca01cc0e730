"""The cancellation of a job by a task that Airflow ends."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from airflow_training.operators import run as module
from airflow_training.operators.claim import Claim
from airflow_training.operators.run import TaskRun


@pytest.mark.anyio
async def test_a_job_is_canceled_though_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "StandIn", MagicMock(side_effect=OSError("Cannot allocate memory")))
    task, context = MagicMock(), MagicMock()
    run = TaskRun(task, context)
    run.claim = Claim("1", 1, 0, "a", "training", None, "1h")
    client: Any = AsyncMock()
    client.cancel.return_value = True

    await run._cancel_in_time(client)

    client.cancel.assert_awaited_once_with("1")
    assert run.claim.over
    task.log.warning.assert_called_once()
