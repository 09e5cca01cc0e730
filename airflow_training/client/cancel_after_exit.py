"""A process that cancels a job if the task's process ends before it has done so.

Airflow (3.3) kills the process of a task five seconds after SIGTERM, and a cancellation may take longer. The stand-in
starts before the cancellation, in a session of its own. It waits for the end of its standard input, which comes however
its parent ends, and cancels the job unless the parent has reported that this is done.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_training.client.settings import ClientSettings

# Nothing waits for these processes: Python warns about a process that is garbage-collected without a wait.
_started: list[subprocess.Popen[bytes]] = []

# Seconds after the cancellation within which a submit that was under way may still arrive.
_SUBMIT_ARRIVAL = 60.0
_INTERVAL = 1.0


class StandIn:
    """Cancels a job if this process ends before `dismiss`.

    Args:
        settings: The service. They go through a pipe, so that no list of processes shows the secret.
        job_id: The job.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, settings: ClientSettings, job_id: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            # It may outlive this process, and Airflow's supervisor waits for the end of this process's output.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _started.append(self._process)
        self._send(json.dumps({"settings": dataclasses.asdict(settings), "job_id": job_id}))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def dismiss(self) -> None:
        """End the stand-in: there is nothing left to cancel."""
        self._send("done")
        self.begin()

    def begin(self) -> None:
        """Cancel the job now, unless the stand-in was dismissed."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()

    def _send(self, line: str) -> None:
        # The stand-in may have failed to start: the job is canceled by this process, or not at all.
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()


def main() -> None:
    """Wait for the end of the parent, and cancel the job unless the parent has done so."""
    order = json.loads(sys.stdin.readline())
    if not sys.stdin.read():
        asyncio.run(_cancel(order))


async def _cancel(order: dict[str, object]) -> None:
    # Imported only if needed: most stand-ins are dismissed.
    from airflow_training.client.client import TrainingClient  # noqa: PLC0415
    from airflow_training.client.retry import CANCEL_AFTER_EXIT  # noqa: PLC0415
    from airflow_training.client.settings import ClientSettings  # noqa: PLC0415

    settings = ClientSettings(**order["settings"])  # type: ignore[arg-type]  # what `asdict` made of one
    last = time.monotonic() + _SUBMIT_ARRIVAL
    async with TrainingClient(settings, CANCEL_AFTER_EXIT) as client:
        while not await client.cancel(str(order["job_id"])):
            if time.monotonic() > last:
                return
            await asyncio.sleep(_INTERVAL)


if __name__ == "__main__":
    main()
