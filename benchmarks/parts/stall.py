"""Stalls of an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from benchmarks.parts.names import STALL

_SLEEP = 0.01


async def longest_stall(seconds: float) -> float:
    """Repeatedly sleep ten milliseconds; returns the longest delay of a sleep, in seconds."""
    longest = 0.0
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        await asyncio.sleep(_SLEEP)
        longest = max(longest, time.monotonic() - began - _SLEEP)
    return longest


class StallTrigger(BaseTrigger):
    """Measures the loop of a triggerer; never ends."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's base is not typed there

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and no arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Measure."""
        for _ in count():
            self.log.info(STALL, seconds=await longest_stall(1))
        yield TriggerEvent(None)
