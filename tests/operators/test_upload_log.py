"""The upload in the task log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from airflow_training.client.storage import Upload
from airflow_training.operators.claim import Claim
from airflow_training.operators.run import TaskRun

pytestmark = pytest.mark.anyio


async def test_many_files_do_not_fill_the_task_log(caplog: pytest.LogCaptureFixture) -> None:
    async def upload(_: str, files: Sequence[Upload], done: Callable[..., None], *_others: Any) -> None:
        for file in files:
            done(file, 10, True)

    caplog.set_level(logging.INFO)
    task: Any = MagicMock(log=logging.getLogger("task"))
    context: Any = MagicMock()
    run = TaskRun(task, context)
    run.claim = Claim("1", 1, 0, "a", "training", None, "1h")
    client = AsyncMock()
    client.storage.return_value.upload = upload
    files = [Upload(f"{number}.csv", b"") for number in range(20_000)]

    await run._upload(client, files)

    assert caplog.messages == [f"Uploading 20,000 files to {run.claim.folder}", "Uploaded 20,000 files (200,000 bytes)"]
