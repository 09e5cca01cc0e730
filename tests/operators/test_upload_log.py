"""What the task log has of an upload."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from airflow_training.client.storage import Upload
from airflow_training.operators.run import Attempt

pytestmark = pytest.mark.anyio


async def test_many_files_do_not_fill_the_task_log(caplog: pytest.LogCaptureFixture) -> None:
    async def upload(_: str, files: Sequence[Upload], done: Callable[..., None], *_others: Any) -> None:
        for file in files:
            done(file, 10, True)

    caplog.set_level(logging.INFO)
    context: Any = MagicMock()
    log: Any = logging.getLogger("task")
    attempt = Attempt(context, log, training_conn_id="training", durable=True, cancel_on_kill=True)
    client = AsyncMock()
    client.storage.return_value.upload = upload
    files = [Upload(f"{number}.csv", b"") for number in range(20_000)]

    await attempt._upload(client, MagicMock(folder="jobs/a"), files)

    assert caplog.messages == ["Uploading 20,000 files to jobs/a", "Uploaded 20,000 files (200,000 bytes)"]
