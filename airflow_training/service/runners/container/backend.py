"""The backend that runs a job in its own container, by a helper process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from airflow_training.service.runners.container.folders import container_folder, create_folders, work_folder
from airflow_training.service.runners.run_folder import Spec, unique_name
from airflow_training.service.runners.supervisor.backend import Backend
from airflow_training.service.runners.supervisor.helper import (
    HelperLimiter,
    check_helper,
    helper_program,
    run_uninterrupted,
)
from airflow_training.service.runners.supervisor.process_tree import Ended, Program
from airflow_training.service.runners.supervisor.time_and_disk_limits import Limiter
from airflow_training.service.runners.supervisor.working_copy import WorkingCopy, remove_tree

# Not imported: each job has a supervisor, which must stay free of Docker's SDK.
_HELPER = "airflow_training.service.runners.container.create_and_remove"

# Jobs run as the service's user, or as this one if that is root. Source: nobody in passwd(5).
_NOBODY = 65534

# Seconds between attempts to remove a container.
_RETRY_INTERVAL = 5.0


class ContainerBackend(Backend):
    """Runs the command in a container, on a copy of the job's files.

    Args:
        state: The run folder of the job.
        spec: The job.
    """

    grace = 5.0

    def __init__(self, state: Path, spec: Spec) -> None:
        self._state = state
        self._limits = spec.limits
        self._engine = spec.container.engine if spec.container else {}
        self._folder = container_folder(state)
        self._owner = os.getuid() or _NOBODY
        self._files = WorkingCopy(
            spec.files,
            work_folder(state),
            state,
            owner=self._owner,
            most=self._limits.disk,
        )

    @property
    def name(self) -> str:
        """The name of the container."""
        return f"container-{unique_name(self._state)}"

    def limiter(self) -> Limiter:
        """Limit the disk space; the engine enforces all other limits."""
        self._limiter = HelperLimiter(self._limits, self._folder, self._state, self.clean)
        return self._limiter

    def prepare(self, run: Callable[[Program], Ended], _: Callable[[str], None]) -> Ended | None:
        """Copy the job's files, and pull the image."""
        create_folders(self._state, self._owner)
        if ended := check_helper(run(self._helper("wait"))):
            return ended
        # Waiting for the engine does not count. Preparing and the command may each take as long as the job may.
        self._limiter.start_clock()
        if fetched := self._files.fetch(run):
            return fetched
        return check_helper(run(self._helper("prepare")))

    def program(self) -> Program:
        """The helper that runs the container: it forwards the output and the exit status."""
        return self._helper("run")

    def clean(self) -> None:
        """Remove the container by force; waits until the engine is reachable."""
        while not run_uninterrupted(self._helper("remove")).ok:
            time.sleep(_RETRY_INTERVAL)

    def close(self, emit: Callable[[str], None]) -> None:
        """Remove the container, copy the job's files back, and remove the copy."""
        self.clean()
        self._files.send(emit)
        remove_tree(self._folder)

    def _helper(self, step: str) -> Program:
        return helper_program(_HELPER, step, str(self._state), **self._engine)
