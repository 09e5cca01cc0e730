"""What a supervisor asks of the place that its job runs in, whichever that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from airflow_training.exceptions import TrainingError
from airflow_training.service.runners.process.process_tree import Ended, Output
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.limits import Watch
from airflow_training.service.runners.supervisor.usage_file import UsageFile


@dataclass(frozen=True)
class Program:
    """A program that the supervisor runs.

    Attributes:
        command: The program and its arguments.
        folder: Where it runs.
        environment: All of its environment.
    """

    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]


class PlaceFailed(TrainingError):
    """An attempt cannot be made in its place; the text says why, and is the message of the job."""


class Place(Protocol):
    """Where one job runs: as a process of this machine, in a container, on Ray."""

    @property
    def holder(self) -> str:
        """What holds the job while it runs; with the process id of its program, the `containerID` of its status."""

    @property
    def grace(self) -> float:
        """Seconds between the request to end and the end by force."""

    def output(self, log: JobLog, usage: UsageFile) -> Output:
        """What takes the output of the programs, for the log of the job, and what comes with it of samples."""

    def watch(self) -> Watch:
        """Watch an attempt."""

    def prepare(self, run: Callable[[Program], Ended], say: Callable[[str], None]) -> Ended | None:
        """Make ready for an attempt.

        Args:
            run: Runs a program to its end.
            say: Writes a line of the service's own into the log.

        Returns:
            How a program ended that used too much; None where the attempt can begin.

        Raises:
            PlaceFailed: The attempt cannot be made.
        """

    def program(self) -> Program:
        """What runs the job's command, once."""

    def clean(self) -> None:
        """End and remove what an attempt left; safe to repeat, and where there was none."""

    def close(self, say: Callable[[str], None]) -> None:
        """Hand over what the job wrote, after its last attempt; safe to repeat."""
