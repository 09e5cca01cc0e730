"""A process that cancels a job when the one that should have done so is gone.

Airflow (3.3) kills the process of a task five seconds after it asked it to end, and a service may take longer than that
for a cancellation. The stand-in is started before the cancellation is tried, in a session of its own. It waits for the
end of its standard input, which comes however its parent ends, and cancels the job unless the parent said that this is
done.
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

PATIENCE = 15 * 60.0
"""Seconds for which it tries to reach the service."""

# Nobody waits for them: Python warns of a process that nobody waited for, once nobody knows it any more.
_started: list[subprocess.Popen[bytes]] = []

# Seconds for which a submit that was under way may still arrive after the cancellation.
_ARRIVES = 60.0
_ASK_AGAIN = 1.0


class StandIn:
    """Cancels a job if this process ends before `dismiss`.

    Args:
        settings: The service. They go through a pipe, so no list of processes shows the secret.
        job_id: The job.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, settings: ClientSettings, job_id: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            # It may outlive this process, whose supervisor waits for the end of its output.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _started.append(self._process)
        self._say(json.dumps({"settings": dataclasses.asdict(settings), "job_id": job_id}))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def dismiss(self) -> None:
        """Let it end: there is nothing left to cancel."""
        self._say("done")
        self.begin()

    def begin(self) -> None:
        """Let it cancel the job now, unless it was dismissed."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()

    def _say(self, line: str) -> None:
        # One that could not even start is not waited for: the job is canceled by this process, or not at all.
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()


def main() -> None:
    """Wait for the end of the parent, and cancel the job that it named if it did not."""
    order = json.loads(sys.stdin.readline())
    if not sys.stdin.read():
        asyncio.run(_cancel(order))


async def _cancel(order: dict[str, object]) -> None:
    # Seldom needed: a stand-in that is dismissed has imported none of it.
    from airflow_training.client.client import TrainingClient  # noqa: PLC0415
    from airflow_training.client.retry import RetryPolicy  # noqa: PLC0415
    from airflow_training.client.settings import ClientSettings  # noqa: PLC0415

    settings = ClientSettings(**order["settings"])  # type: ignore[arg-type]  # what `asdict` made of one
    last = time.monotonic() + _ARRIVES
    async with TrainingClient(settings, RetryPolicy(budget=PATIENCE)) as client:
        while not await client.cancel(str(order["job_id"])):
            if time.monotonic() > last:
                return
            await asyncio.sleep(_ASK_AGAIN)


if __name__ == "__main__":
    main()
