"""Work that is completed even if the task that started it is canceled, once or several times."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# The event loop keeps only weak references to tasks.
_unfinished: set[asyncio.Task[Any]] = set()


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in its own task and wait for it; if the wait is canceled, the work continues.

    Only the end of the event loop cancels the work: `asyncio.run` cancels each task once and waits for it.

    >>> async def canceled_at_once() -> str:
    ...     written = []
    ...     async def write() -> None:
    ...         await asyncio.sleep(0.01)
    ...         written.append("all of it")
    ...     waiting = asyncio.ensure_future(run_to_completion(write()))
    ...     await asyncio.sleep(0)
    ...     waiting.cancel()
    ...     while not written:
    ...         await asyncio.sleep(0.01)
    ...     return written[0]
    >>> asyncio.run(canceled_at_once())
    'all of it'
    """
    task = asyncio.ensure_future(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    return await asyncio.shield(task)
