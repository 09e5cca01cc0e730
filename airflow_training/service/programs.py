"""Short programs that look into what jobs have written.

What is read there was made by somebody's script, and may be made so that reading it takes all memory and time: a
program of its own has limits of its own, and the service goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from airflow_training.service.files import PACKAGE_PARENT
from airflow_training.service.runners.environment import clean_environment

_AT_A_TIME = 2
_PATIENCE = 20.0


class Programs:
    """Runs the programs, two at a time, and one of each kind for a job at a time."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_A_TIME)
        self._running: dict[tuple[str, Path], asyncio.Task[None]] = {}

    async def run(self, module: str, state: Path) -> None:
        """Have a program do its work for the job of a state folder; whether it did is seen in there.

        Who asks while it runs waits for it, and who goes away meanwhile does not end it for others.
        """
        key = (module, state)
        if key not in self._running:
            self._running[key] = asyncio.create_task(self._run(module, state))
            self._running[key].add_done_callback(lambda _: self._running.pop(key))
        with suppress(OSError):  # the machine has no room for another process
            await asyncio.shield(self._running[key])

    async def _run(self, module: str, state: Path) -> None:
        async with self._places:
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
                    await asyncio.wait_for(process.wait(), _PATIENCE)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
