"""A job in a container of its own, which a client program starts and follows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow_training.service.runners.container import state as container_state
from airflow_training.service.runners.process.process_tree import Ended, Output
from airflow_training.service.runners.run_folder import name_of
from airflow_training.service.runners.supervisor.backend import Program
from airflow_training.service.runners.supervisor.helper_process import ClientWatch, said
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.limits import JobLimits, Watch
from airflow_training.service.runners.supervisor.staging import Staging, python_program, remove_tree, run_undisturbed
from airflow_training.service.runners.supervisor.usage_file import UsageFile

# Named and not imported: a supervisor, of which each job has one, needs nothing of Docker's SDK.
_CLIENT = "airflow_training.service.runners.container.helper"

# Jobs run as the service's user; where that is root, as the one who owns nothing. Source: nobody in passwd(5).
_NOBODY = 65534

# Seconds after which it is tried again to remove a container.
_PAUSE = 5.0


class ContainerPlace:
    """Runs the command in a container, on a copy of the files that were uploaded.

    Args:
        state: The state folder of the job.
        specification: What is to be run.
    """

    grace = 5.0

    def __init__(self, state: Path, specification: Mapping[str, Any]) -> None:
        self._state = state
        self._limits = JobLimits(**specification["limits"])
        self._engine: dict[str, str] = specification["engine"]
        self._folder = container_state.folder_of(state)
        self._owner = os.getuid() or _NOBODY
        self._files = Staging(
            specification["files"],
            self._folder / container_state.WORK,
            state,
            owner=self._owner,
            most=self._limits.disk,
        )

    @property
    def holder(self) -> str:
        """The name of the container."""
        return f"container-{name_of(self._state)}"

    def output(self, log: JobLog, _: UsageFile) -> Output:
        """What the programs write is the log of the job."""
        return log

    def watch(self) -> Watch:
        """Watch the disk that the container writes to; the engine limits all else."""
        self._watch = ClientWatch(self._limits, self._folder, self._state, self.clean)
        return self._watch

    def prepare(self, run: Callable[[Program], Ended], _: Callable[[str], None]) -> Ended | None:
        """Copy the job's files, and have the engine pull the image."""
        container_state.make_folder(self._state, self._owner)
        ended = run(self._client("wait"))
        if ended.status or ended.overstepped or ended.stopped:
            return said(ended)
        # To make ready may take as long as the job may; the time of the command counts anew.
        self._watch.start_the_clock()
        if fetched := self._files.fetch(run):
            return fetched
        ended = run(self._client("prepare"))
        return said(ended) if ended.status or ended.overstepped or ended.stopped else None

    def program(self) -> Program:
        """The client that starts the container, hands its output on, and ends as the command does."""
        return self._client("run")

    def clean(self) -> None:
        """Remove the container, whatever it does, however long the engine is away."""
        while not run_undisturbed(self._client("remove")).ok:
            time.sleep(_PAUSE)

    def close(self, say: Callable[[str], None]) -> None:
        """Remove the container, bring back what the job wrote, and remove the copy."""
        self.clean()
        self._files.send(say)
        remove_tree(self._folder)

    def _client(self, step: str) -> Program:
        return python_program(_CLIENT, step, str(self._state), **self._engine)
