"""Helpers: programs that do for the supervisor what would make it large, with Docker's SDK or an S3 client.

A helper outlives no supervisor, notes what it waits for and why it failed in the run folder, and writes its output to
the log of the job.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from airflow_training.service.runners.run_folder import JobLimits, clear_failure, failure
from airflow_training.service.runners.supervisor.backend import BackendFailed
from airflow_training.service.runners.supervisor.process_tree import Ended, Program, end_with
from airflow_training.service.runners.supervisor.time_and_disk_limits import Limiter


@dataclass(frozen=True)
class Done:
    """How a helper ended that cannot be interrupted."""

    ok: bool
    output: str


def helper_program(module: str, *arguments: str, **variables: str) -> Program:
    """A module of this package as a program."""
    return Program([sys.executable, "-m", module, *arguments], Path.cwd(), {**os.environ, **variables})


def run_uninterrupted(helper: Program) -> Done:
    """Run a helper to its end, even if the job is to stop."""
    done = subprocess.run(
        helper.command,
        cwd=helper.folder,
        env=helper.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        preexec_fn=partial(end_with, os.getpid()),
    )
    return Done(done.returncode == 0, done.stdout.strip())


def check_helper(ended: Ended) -> Ended | None:
    """Return how a helper ended that was stopped or exceeded a limit; None if it succeeded.

    Raises:
        BackendFailed: It failed without a reason; one that it noted is in `exceeded`.
    """
    if ended.stopped or ended.exceeded:
        return ended
    if ended.status:
        raise BackendFailed("the helper that runs the job failed; its output is in the log", code="AT-459")
    return None


class HelperLimiter(Limiter):
    """Ends the helper that runs a job elsewhere; it notes which limits the job exceeded there.

    Args:
        limits: What the job may use.
        folder: All that the job can write to on this machine's disk.
        state: The run folder of the job.
        remove: Ends the job where it runs, without its helper.
    """

    def __init__(self, limits: JobLimits, folder: Path, state: Path, remove: Callable[[], None]) -> None:
        super().__init__(limits, folder)
        self._state = state
        self._remove = remove
        self._killed = False
        self._supervisor = os.getpid()
        clear_failure(state)

    def enter(self) -> None:
        """Have the helper end with the supervisor: the next one ends the job, and starts another helper."""
        end_with(self._supervisor)

    def kill(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """End the helper, which then cannot end the job."""
        self._killed = self._killed or bool(processes())
        super().kill(processes)

    def close(self) -> None:
        """End the job if its helper was killed."""
        if self._killed:
            self._remove()

    def exceeded(self, processes: Callable[[], list[psutil.Process]]) -> str:
        """Return which limit the job exceeded, or why it could not run; an empty text if neither."""
        return failure(self._state) or super().exceeded(processes)
