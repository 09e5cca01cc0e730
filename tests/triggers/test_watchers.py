"""Triggers that share a watcher."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from typing import Any

import pytest

from airflow_training.client.retry import RetryPolicy
from airflow_training.exceptions import ServiceUnavailable
from airflow_training.hooks.training import TrainingHook
from airflow_training.triggers import shared_watcher as watchers
from airflow_training.triggers.shared_watcher import shared_watcher

pytestmark = pytest.mark.anyio


async def test_triggers_with_the_same_connection_share_a_watcher(training_connection: str) -> None:
    async with AsyncExitStack() as stack:
        joined = [stack.enter_async_context(shared_watcher(training_connection, None)) for _ in range(20)]
        watchers = await asyncio.gather(*joined)
        other = await stack.enter_async_context(shared_watcher(training_connection, "v3"))

        assert len(set(watchers)) == 1
        assert other not in watchers
        assert await watchers[0].client.find("nothing") is None

    async with shared_watcher(training_connection, None) as later:
        assert later not in watchers


async def test_an_edited_connection_gets_another_watcher(
    training_connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"AIRFLOW_CONN_{training_connection.upper()}"
    edited = {**json.loads(os.environ[variable]), "host": "elsewhere.example"}
    async with shared_watcher(training_connection, None) as before:
        monkeypatch.setenv(variable, json.dumps(edited))
        async with shared_watcher(training_connection, None) as after:
            assert before.client.settings.base_url != after.client.settings.base_url
            assert "elsewhere.example" in after.client.settings.base_url

        assert await before.client.find("nothing") is None


async def test_a_missing_connection_is_a_retryable_error_for_each_trigger(
    training_connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "FOLLOW", RetryPolicy(budget=0, first=0.01))

    async def join() -> None:
        async with shared_watcher("no_such_connection", None):
            pass

    errors = await asyncio.gather(join(), join(), return_exceptions=True)

    assert [type(error) for error in errors] == [ServiceUnavailable] * 2


async def test_a_connection_that_cannot_be_read_for_a_moment_is_waited_for(
    training_connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "FOLLOW", RetryPolicy(budget=30, first=0.01))
    variable = f"AIRFLOW_CONN_{training_connection.upper()}"
    there = os.environ[variable]
    monkeypatch.delenv(variable)
    read = TrainingHook.aget_connection
    tried = 0

    async def counted(conn_id: str) -> Any:
        nonlocal tried
        if (tried := tried + 1) == 3:
            monkeypatch.setenv(variable, there)
        return await read(conn_id)

    monkeypatch.setattr(TrainingHook, "aget_connection", staticmethod(counted))

    async with shared_watcher(training_connection, None) as watcher:
        assert await watcher.client.find("nothing") is None
    assert tried == 3


async def test_while_the_connection_cannot_be_read_triggers_share_the_existing_watcher(
    training_connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "_READ_TIMEOUT", 0.1)
    async with shared_watcher(training_connection, None) as before:
        monkeypatch.delenv(f"AIRFLOW_CONN_{training_connection.upper()}")
        async with shared_watcher(training_connection, None) as after:
            assert before is after
