"""The programs that read what jobs wrote."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path

import pytest

from airflow_training.service.insights import readers
from airflow_training.service.insights.readers import ReaderPrograms


def test_a_tenant_with_many_jobs_delays_no_other_tenant_and_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    may_end: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def program(_: str, state: Path) -> None:
        begun.append(state.name)
        await may_end[state.name].wait()

    async def ask() -> None:
        mine = ReaderPrograms()
        requests = [mine.run("", "greedy", Path(f"greedy-{number}"), "running", 0.1) for number in range(20)]
        begin = time.monotonic()
        ended = await asyncio.gather(*requests, mine.run("", "other", Path("other"), "running", 0.1))
        assert not any(ended)
        assert time.monotonic() - begin < 10
        assert begun == ["greedy-0", "other"]
        may_end["other"].set()
        assert mine.is_running("", Path("greedy-0"), "running")
        for version in ("running", "running", "ended"):
            assert await mine.run("", "other", Path("other"), version, 60), "it has ended"
            assert not mine.is_running("", Path("other"), version)
        assert begun == ["greedy-0", "other", "other"], "it runs again at once only for a new version"

    monkeypatch.setattr(readers, "_program", program)
    asyncio.run(ask())
