"""Watching the client of a job that runs elsewhere: in a container, on another machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil

from airflow_training.service.runners.process.process_tree import Ended, end_with
from airflow_training.service.runners.supervisor.backend import PlaceFailed
from airflow_training.service.runners.supervisor.helper_notes import failure, forget_failure
from airflow_training.service.runners.supervisor.limits import JobLimits, Watch


class ClientWatch(Watch):
    """Watches the client; what is limited where the job runs shows in what the client notes.

    Args:
        limits: What the job may use.
        folder: All that the job can write to of this machine's disk.
        state: The state folder of the job.
        remove: Ends the job where it runs, whatever its client did.
    """

    def __init__(self, limits: JobLimits, folder: Path, state: Path, remove: Callable[[], None]) -> None:
        super().__init__(limits, folder)
        self._state = state
        self._remove = remove
        self._killed = False
        self._supervisor = os.getpid()
        forget_failure(state)

    def enter(self) -> None:
        """Have the client end with the supervisor: the next one ends the job, and starts another client."""
        end_with(self._supervisor)

    def kill(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """End the client, which then cannot end the job."""
        self._killed = self._killed or bool(processes())
        super().kill(processes)

    def close(self) -> None:
        """End the job, where its client had no time to."""
        if self._killed:
            self._remove()

    def overstepped(self, processes: Callable[[], list[psutil.Process]]) -> str:
        """Say what the job used too much of, or why it could not run; an empty text where it does well."""
        return failure(self._state) or super().overstepped(processes)


def said(ended: Ended) -> Ended:
    """How a client ended; why is in `overstepped` already, where the client could say it."""
    if ended.status and not ended.stopped and not ended.overstepped:
        raise PlaceFailed("the client of what the job runs on failed; the log tells why", code="AT-459")
    return ended
