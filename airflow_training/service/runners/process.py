"""Jobs as processes of this machine, each held by a supervisor that outlives the service."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

import airflow_training
from airflow_training.jobs.description import JobDescription
from airflow_training.jobs.limits import read_duration
from airflow_training.jobs.status import JobState
from airflow_training.service.database import now
from airflow_training.service.files import read_json, write_json
from airflow_training.service.runners import supervisor
from airflow_training.service.runners.cgroup import Cgroup
from airflow_training.service.runners.environment import clean_environment
from airflow_training.service.runners.limits import JobLimits
from airflow_training.service.runners.python_version import missing_python
from airflow_training.service.runners.runner import JobKey, Order, Progress
from airflow_training.service.settings import DataFolder

# Where this package is imported from: supervisors import it from there as well, installed or not.
PACKAGE_PARENT = Path(airflow_training.__file__).parents[1]


class ProcessRunner:
    """Runs jobs as processes.

    All that it knows lies in the state folders of the jobs, so that a restarted service knows as much.

    Args:
        data: The data folder.
        disk: MB that a job may have in its folder.
        log: Bytes that the log of a job may have.
    """

    def __init__(self, data: DataFolder, *, disk: int, log: int) -> None:
        self._data = data
        self._disk = disk
        self._log = log
        self._children: dict[JobKey, subprocess.Popen[bytes]] = {}

    def objection(self, description: JobDescription) -> str:
        """Refuse what needs a Python that this machine has not."""
        if not (version := missing_python(description.execution)):
            return ""
        return (
            f"The job wants Python {version}, and jobs run as processes here, with Python {sys.version_info.major}."
            f"{sys.version_info.minor}: change the script, or have whoever runs the service use the container runner,"
            " where the image brings its Python."
        )

    def start(self, order: Order) -> None:
        """Start the job's supervisor; where there is or was one, it ends at once and leaves the job alone."""
        state = self._state(order.key)
        if (state / supervisor.SUPERVISOR).exists():
            return
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(state / supervisor.SPECIFICATION, self._specification(order))
        self._launch(order.key)

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
        if not alive and (lost := self._lost(key, started, container)):
            return lost
        if started:
            return Progress(JobState.RUNNING, container_id=container, started=_time(started["started"]))
        return Progress(JobState.PENDING, "preparing the job's environment" if taken_up else "starting")

    def cancel(self, key: JobKey) -> None:
        """Tell the supervisor to end the job."""
        state = self._state(key)
        (state / supervisor.CANCEL).touch()
        taken_up = read_json(state / supervisor.SUPERVISOR)
        specification = read_json(state / supervisor.SPECIFICATION)
        # Who holds the lock lives. Until it has written its process id, the one there is that of the attempt before;
        # then it finds the wish by itself.
        if taken_up and specification and taken_up["attempt"] >= specification["attempt"] and _locked(state):
            with contextlib.suppress(ProcessLookupError):
                os.kill(taken_up["pid"], signal.SIGTERM)

    def _specification(self, order: Order) -> dict[str, Any]:
        execution = order.description.execution
        time = read_duration(execution.completion_time)
        limits = JobLimits(
            order.granted.cpus, order.granted.memory, self._disk, self._log, time.total_seconds() if time else None
        )
        notes = []
        if execution.image:
            notes.append(f"Jobs run as processes here: the image {execution.image} is recorded and not used.")
        if order.granted != order.asked:
            notes.append(
                f"The job asks for {order.asked.in_words()}; the machine has less and gives it"
                f" {order.granted.in_words()}."
            )
        if time is None:
            notes.append(
                f"The completionTime {execution.completion_time!r} is no time that is understood here: no limit."
            )
        return {
            "command": execution.command,
            "env": {
                **{variable.name: variable.text for variable in order.description.env},
                # None at all, rather than those of others, where it has not asked for any.
                "CUDA_VISIBLE_DEVICES": ",".join(order.gpus),
            },
            "folder": str(self._data.job_folder(order.key.tenant, order.description.name, order.key.job_id)),
            "limits": limits.to_dict(),
            "notes": notes,
            "retries": execution.retries,
            "attempt": 1,
        }

    def _launch(self, key: JobKey) -> None:
        state = self._state(key)
        with (state / "supervisor.log").open("ab") as log:
            self._children[key] = subprocess.Popen(
                [sys.executable, "-m", supervisor.__name__, str(state)],
                cwd=PACKAGE_PARENT,
                env=clean_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _state(self, key: JobKey) -> Path:
        return self._data.job_state(*key)

    def _alive(self, key: JobKey) -> bool:
        self._children = {key: child for key, child in self._children.items() if child.poll() is None}
        state = self._state(key)
        return key in self._children or ((state / supervisor.SUPERVISOR).exists() and _locked(state))

    def _lost(self, key: JobKey, started: dict[str, Any] | None, container: str) -> Progress | None:
        """See to a job whose supervisor ended before the job did; None where it goes on, or is run again."""
        state = self._state(key)
        with _lock_of(state) as held:
            # One that an earlier life of the service had launched may have come up, and even ended, just now.
            if not held or (state / supervisor.EXIT).exists():
                return None
            return self._see_to_lost(key, started, container)

    def _see_to_lost(self, key: JobKey, started: dict[str, Any] | None, container: str) -> Progress | None:
        state = self._state(key)
        taken_up = read_json(state / supervisor.SUPERVISOR)
        _end_what_was_left(state)
        if not taken_up:
            why = "the job's supervisor could not be started; the log of the service tells why"
        elif taken_up["boot"] != supervisor.boot_id():
            why = "the machine was started anew while the job ran"
        else:
            why = "the job's supervisor was ended while the job ran"
        canceled = (state / supervisor.CANCEL).exists()
        specification = read_json(state / supervisor.SPECIFICATION)
        if taken_up and specification and not canceled and taken_up["attempt"] <= specification["retries"]:
            again = f"It is run again: {why}. This is attempt {taken_up['attempt'] + 1}."
            changes = {"attempt": taken_up["attempt"] + 1, "notes": [again]}
            write_json(state / supervisor.SPECIFICATION, {**specification, **changes})
            self._launch(key)
            return None
        return Progress(
            JobState.CANCELED if canceled else JobState.FAILED,
            "canceled on request" if canceled else why,
            container,
            started=_time(started["started"]) if started else None,
            finished=now(),
        )


def _locked(state: Path) -> bool:
    with _lock_of(state) as held:
        return not held


@contextlib.contextmanager
def _lock_of(state: Path) -> Iterator[bool]:
    """Take the lock that a supervisor holds for as long as it lives; False where one does."""
    with (state / supervisor.LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _end_what_was_left(state: Path) -> None:
    """End what a supervisor left behind that was killed itself: nobody would read its output any more."""
    if group := Cgroup.find(supervisor.group_name(state)):
        group.kill()
        group.remove()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(supervisor.JOB_VARIABLE) == str(state):
                process.kill()
    shutil.rmtree(state / supervisor.PYTHON, ignore_errors=True)


def _ended(document: dict[str, Any], container: str) -> Progress:
    return Progress(
        JobState(document["state"]),
        document["message"],
        container,
        started=_time(document["started"]),
        finished=_time(document["finished"]),
        exit_code=document["exit_code"],
        log_bytes=document["log_bytes"],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
