"""The programs that look into what jobs have written."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path

import pytest

from airflow_training.service.insights import readers
from airflow_training.service.insights.readers import Programs


def test_a_tenant_with_many_jobs_keeps_no_other_waiting_and_no_request_long(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    may_end: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def program(_: str, state: Path) -> None:
        begun.append(state.name)
        await may_end[state.name].wait()

    async def ask() -> None:
        mine = Programs()
        requests = [mine.run("", "greedy", Path(f"greedy-{number}"), "runs", 0.1) for number in range(20)]
        begin = time.monotonic()
        ended = await asyncio.gather(*requests, mine.run("", "other", Path("other"), "runs", 0.1))
        assert not any(ended)
        assert time.monotonic() - begin < 10
        assert begun == ["greedy-0", "other"]
        may_end["other"].set()
        assert mine.is_running("", Path("greedy-0"), "runs")
        for of in ("runs", "runs", "ended"):
            assert await mine.run("", "other", Path("other"), of, 60), "it has ended"
            assert not mine.is_running("", Path("other"), of)
        assert begun == ["greedy-0", "other", "other"], "it is started again for what is new, and else not at once"

    monkeypatch.setattr(readers, "_program", program)
    asyncio.run(ask())
