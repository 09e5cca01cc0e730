"""Triggers that share a watcher."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack

import pytest

from airflow_training.exceptions import InvalidConnection
from airflow_training.triggers.watchers import shared_watcher

pytestmark = pytest.mark.anyio


async def test_all_who_use_a_connection_share_a_watcher_while_one_of_them_does(training_connection: str) -> None:
    async with AsyncExitStack() as stack:
        joined = [stack.enter_async_context(shared_watcher(training_connection, None)) for _ in range(20)]
        watchers = await asyncio.gather(*joined)
        other = await stack.enter_async_context(shared_watcher(training_connection, "v3"))

        assert len(set(watchers)) == 1
        assert other not in watchers
        assert await watchers[0].client.find("nothing") is None

    async with shared_watcher(training_connection, None) as later:
        assert later not in watchers


async def test_who_comes_after_the_connection_was_edited_does_not_join_those_before(
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


async def test_a_connection_that_is_not_there_is_an_error_to_each(training_connection: str) -> None:
    async def join() -> None:
        async with shared_watcher("no_such_connection", None):
            pass

    errors = await asyncio.gather(join(), join(), return_exceptions=True)

    assert [type(error) for error in errors] == [InvalidConnection] * 2
