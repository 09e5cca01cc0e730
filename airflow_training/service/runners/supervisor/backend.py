"""The interface between a supervisor and what its job runs on: processes, containers or Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from airflow_training.exceptions import TrainingError
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.process_tree import Ended, Output, Program
from airflow_training.service.runners.supervisor.time_and_disk_limits import Limiter
from airflow_training.service.runners.supervisor.usage import UsageFile


class BackendFailed(TrainingError):
    """The backend cannot make an attempt; the text is the message of the job."""


class Backend(Protocol):
    """What one job runs on."""

    @property
    def name(self) -> str:
        """What runs the job; with the process id of its program, the `containerID` of its status."""

    @property
    def grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""

    def output(self, log: JobLog, usage: UsageFile) -> Output:
        """What takes the output of the programs, for the log of the job, and the samples in it: here, the log."""
        return log

    def limiter(self) -> Limiter:
        """What enforces the limits of the next attempt."""

    def prepare(self, run: Callable[[Program], Ended], emit: Callable[[str], None]) -> Ended | None:
        """Prepare an attempt.

        Args:
            run: Runs a program to its end.
            emit: Writes a line of the service to the log.

        Returns:
            How a program ended that exceeded a limit or was stopped; None if the command can start.

        Raises:
            BackendFailed: The attempt cannot be made.
        """

    def program(self) -> Program:
        """The program that runs the job's command, once."""

    def clean(self) -> None:
        """End and remove what an attempt left, if anything; safe to repeat."""

    def close(self, emit: Callable[[str], None]) -> None:
        """Copy back what the job wrote, after its last attempt; safe to repeat."""
