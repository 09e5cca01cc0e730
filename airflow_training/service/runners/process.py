"""Jobs as processes of this machine, each held by a supervisor that outlives the service."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

import airflow_training
from airflow_training.jobs.status import JobState
from airflow_training.service.database import now
from airflow_training.service.files import read_json, write_json
from airflow_training.service.runners import supervisor
from airflow_training.service.runners.environment import clean_environment
from airflow_training.service.runners.runner import JobKey, Order, Progress
from airflow_training.service.settings import DataFolder

# Where this package is imported from: supervisors import it from there as well, installed or not.
PACKAGE_PARENT = Path(airflow_training.__file__).parents[1]


class ProcessRunner:
    """Runs jobs as processes.

    All that it knows lies in the state folders of the jobs, so that a restarted service knows as much.

    Args:
        data: The data folder.
    """

    def __init__(self, data: DataFolder) -> None:
        self._data = data
        self._children: dict[JobKey, subprocess.Popen[bytes]] = {}

    def start(self, order: Order) -> None:
        """Start the job's supervisor; where there is or was one, it ends at once and leaves the job alone."""
        state = self._state(order.key)
        if (state / supervisor.SUPERVISOR).exists():
            return
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        description = order.description
        specification = {
            "command": description.execution.command,
            "env": {variable.name: variable.text for variable in description.env},
            "image": description.execution.image,
            "folder": str(self._data.job_folder(order.key.tenant, description.name, order.key.job_id)),
        }
        write_json(state / supervisor.SPECIFICATION, specification)
        with (state / "supervisor.log").open("ab") as log:
            self._children[order.key] = subprocess.Popen(
                [sys.executable, "-m", supervisor.__name__, str(state)],
                cwd=PACKAGE_PARENT,
                env=clean_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def look(self, key: JobKey) -> Progress:
        """Read how far the job is from its state folder."""
        state = self._state(key)
        # Whether it lives is asked first: what it wrote before it ended is then certainly found.
        alive = self._alive(key)
        taken_up = read_json(state / supervisor.SUPERVISOR)
        started = read_json(state / supervisor.STARTED)
        ended = read_json(state / supervisor.EXIT)
        container = f"process-{started['pid']}" if started else ""
        if ended:
            return _ended(ended, container)
        if alive and started:
            return Progress(JobState.RUNNING, container_id=container, started=_time(started["started"]))
        if alive:
            return Progress(JobState.PENDING, "preparing the job's environment" if taken_up else "starting")
        return self._lost(state, taken_up, started, container)

    def cancel(self, key: JobKey) -> None:
        """Tell the supervisor to end the job."""
        state = self._state(key)
        (state / supervisor.CANCEL).touch()
        taken_up = read_json(state / supervisor.SUPERVISOR)
        # One that holds the lock is alive, so the process id is its own and no other's.
        if taken_up and _locked(state):
            with contextlib.suppress(ProcessLookupError):
                os.kill(taken_up["pid"], signal.SIGTERM)

    def _state(self, key: JobKey) -> Path:
        return self._data.job_state(*key)

    def _alive(self, key: JobKey) -> bool:
        self._children = {key: child for key, child in self._children.items() if child.poll() is None}
        state = self._state(key)
        return key in self._children or ((state / supervisor.SUPERVISOR).exists() and _locked(state))

    def _lost(
        self, state: Path, taken_up: dict[str, Any] | None, started: dict[str, Any] | None, container: str
    ) -> Progress:
        if started:
            _kill_orphans(started)
        shutil.rmtree(state / supervisor.PYTHON, ignore_errors=True)
        if not taken_up:
            message = "the job's supervisor could not be started; the log of the service tells why"
        else:
            message = "the machine or the job's supervisor was stopped while the job ran"
        return Progress(
            JobState.FAILED,
            message,
            container,
            started=_time(started["started"]) if started else None,
            finished=now(),
        )


def _locked(state: Path) -> bool:
    with (state / supervisor.LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _kill_orphans(started: dict[str, Any]) -> None:
    """End what a supervisor left behind that was killed itself: nobody would read its output any more."""
    with contextlib.suppress(psutil.NoSuchProcess):
        command = psutil.Process(started["pid"])
        if command.create_time() == started["created"]:
            for process in (*command.children(recursive=True), command):
                process.kill()


def _ended(document: dict[str, Any], container: str) -> Progress:
    return Progress(
        JobState(document["state"]),
        document["message"],
        container,
        started=_time(document["started"]),
        finished=_time(document["finished"]),
        exit_code=document["exit_code"],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
