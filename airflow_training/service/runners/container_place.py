"""A job in a container of its own, which a client program starts and follows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from airflow_training.service.runners import container_state
from airflow_training.service.runners.limits import JobLimits, Watch
from airflow_training.service.runners.place import PlaceFailed, Program
from airflow_training.service.runners.process_tree import Ended, end_with
from airflow_training.service.runners.staging import Staging, python_program, remove_tree, run_undisturbed
from airflow_training.service.runners.state_folder import name_of

# Named and not imported: a supervisor, of which each job has one, needs nothing of Docker's SDK.
_CLIENT = "airflow_training.service.runners.container_client"

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

    def watch(self) -> Watch:
        """Watch the disk that the container writes to; the engine limits all else."""
        self._watch = _ContainerWatch(self._limits, self._folder, self._state, self.clean)
        return self._watch

    def prepare(self, run: Callable[[Program], Ended], _: Callable[[str], None]) -> Ended | None:
        """Copy the job's files, and have the engine pull the image."""
        container_state.make_folder(self._state, self._owner)
        ended = run(self._client("wait"))
        if ended.status or ended.overstepped or ended.stopped:
            return _said(ended)
        # To make ready may take as long as the job may; the time of the command counts anew.
        self._watch.start_the_clock()
        if fetched := self._files.fetch(run):
            return fetched
        ended = run(self._client("prepare"))
        return _said(ended) if ended.status or ended.overstepped or ended.stopped else None

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


def _said(ended: Ended) -> Ended:
    """How a client ended; why is in `overstepped` already, where the client could say it."""
    if ended.status and not ended.stopped and not ended.overstepped:
        raise PlaceFailed("the client of the container engine failed; the log tells why")
    return ended


class _ContainerWatch(Watch):
    """Watches the client of a container; what is limited by the engine shows in what the client notes.

    Args:
        limits: What the job may use.
        folder: All that the container can write to of this machine's disk.
        state: The state folder of the job.
        remove: Removes the container.
    """

    def __init__(self, limits: JobLimits, folder: Path, state: Path, remove: Callable[[], None]) -> None:
        super().__init__(limits, folder)
        self._state = state
        self._remove = remove
        self._killed = False
        self._supervisor = os.getpid()
        container_state.forget_failure(state)

    def enter(self) -> None:
        """Have the client end with the supervisor: the next one removes the container, and starts another client."""
        end_with(self._supervisor)

    def kill(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """End the client, which then cannot remove the container."""
        self._killed = self._killed or bool(processes())
        super().kill(processes)

    def close(self) -> None:
        """Remove the container, where its client had no time to."""
        if self._killed:
            self._remove()

    def overstepped(self, processes: Callable[[], list[psutil.Process]]) -> str:
        """Say what the job used too much of, or why it could not run; an empty text where it does well."""
        return container_state.failure(self._state) or super().overstepped(processes)
