"""Short programs that read what jobs wrote.

A job's files may be crafted to exhaust memory and time when they are read. A separate process has limits of its own,
and the service stays responsive.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Hashable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from airflow_training.service.atomic_files import PACKAGE_PARENT
from airflow_training.service.runners.supervisor.environment import clean_environment

_logger = logging.getLogger(__name__)

TENSORBOARD_INSTALLED = find_spec("tensorboard") is not None
"""Whether the programs can run: they use TensorBoard's reader and message types."""

_MAX_RUNNING = 2
# Seconds of wall-clock time per program. Its CPU limit is far lower, but all jobs take precedence over it.
_TIMEOUT = 120.0
# Seconds after its end before a program may run again for the same input.
_PAUSE = 10.0


class ReaderPrograms:
    """Runs at most two programs at a time, and one per tenant."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_MAX_RUNNING)
        self._tenant_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._runs: dict[Hashable, asyncio.Task[None]] = {}

    async def run(self, module: str, tenant: str, state: Path, version: Hashable, wait: float) -> bool:
        """Run a program for a job, unless it runs or has just run; it writes its result to the run folder.

        It continues if the wait ends first.

        Args:
            module: The program.
            tenant: The tenant of the job.
            state: The run folder of the job.
            version: Identifies the input; a new version is read at once.
            wait: Seconds to wait for its end.

        Returns:
            Whether it has ended.
        """
        key = (module, state, version)
        if key not in self._runs:
            self._runs[key] = asyncio.create_task(self._run(module, tenant, state))
            loop = asyncio.get_running_loop()
            self._runs[key].add_done_callback(lambda _: loop.call_later(_PAUSE, self._runs.pop, key))
        ended, _ = await asyncio.wait([self._runs[key]], timeout=wait)
        return bool(ended)

    def is_running(self, module: str, state: Path, version: Hashable) -> bool:
        """Whether a program is running, so that its result is not final."""
        task = self._runs.get((module, state, version))
        return task is not None and not task.done()

    async def _run(self, module: str, tenant: str, state: Path) -> None:
        async with self._tenant_locks[tenant], self._slots:
            try:
                status = await _program(module, state)
            except OSError as error:  # the machine cannot start another process
                status = str(error)
        if status:
            _logger.warning("%s failed for the job in %s: %s", module, state.name, status)


async def _program(module: str, state: Path) -> int | str | None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(state)),
        cwd=PACKAGE_PARENT,
        # Otherwise numpy's OpenBLAS starts threads, and each takes address space.
        env={**clean_environment(os.environ), "OPENBLAS_NUM_THREADS": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), _TIMEOUT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode
