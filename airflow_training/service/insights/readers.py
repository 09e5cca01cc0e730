"""Short programs that look into what jobs have written.

What is read there was made by somebody's script, and may be made so that reading it takes all memory and time: a
program of its own has limits of its own, and the service goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path

from airflow_training.service.durable_files import PACKAGE_PARENT
from airflow_training.service.runners.supervisor.environment import clean_environment

_logger = logging.getLogger(__name__)

_AT_A_TIME = 2
# Seconds that a program may take. Of the processor it may take far less, but comes after all jobs there.
_LONGEST = 120.0
# Seconds in which none is started a second time for the same.
_PAUSE = 10.0


class Programs:
    """Runs the programs, two at a time, and of those only one for each tenant."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_A_TIME)
        self._of_tenants: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._begun: dict[Hashable, asyncio.Task[None]] = {}

    async def run(self, module: str, tenant: str, state: Path, of: Hashable, patience: float) -> bool:
        """Have a program do its work for the job of a state folder; whether it did is seen in there.

        It goes on when nobody waits for it any more, and is not started again soon after its end.

        Args:
            module: The program.
            tenant: Whose job it is.
            state: The state folder.
            of: What it is to read, if not the same as before.
            patience: How many seconds to wait for its end.

        Returns:
            Whether it has ended.
        """
        key = (module, state, of)
        if key not in self._begun:
            self._begun[key] = asyncio.create_task(self._run(module, tenant, state))
            self._begun[key].add_done_callback(lambda _: self._forget_later(key))
        ended, _ = await asyncio.wait([self._begun[key]], timeout=patience)
        return bool(ended)

    def is_running(self, module: str, state: Path, of: Hashable) -> bool:
        """Whether a program is at its work, so that what it has written is not its last word."""
        task = self._begun.get((module, state, of))
        return task is not None and not task.done()

    def _forget_later(self, key: Hashable) -> None:
        asyncio.get_running_loop().call_later(_PAUSE, self._begun.pop, key)

    async def _run(self, module: str, tenant: str, state: Path) -> None:
        async with self._of_tenants[tenant], self._places:
            try:
                status = await _program(module, state)
            except OSError as error:  # the machine has no room for another process
                status = str(error)
        if status:
            _logger.warning("%s failed for the job in %s: %s", module, state.name, status)


async def _program(module: str, state: Path) -> int | str | None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(state)),
        cwd=PACKAGE_PARENT,
        # Else the mathematics of numpy makes threads, and each takes address space.
        env={**clean_environment(os.environ), "OPENBLAS_NUM_THREADS": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), _LONGEST)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode
