"""What the service does with any runner: starts a supervisor for each job, reads its progress, and cancels it.

A supervisor is a process that outlives the service.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from airflow_training.api.description import JobDescription
from airflow_training.api.durations import read_duration
from airflow_training.api.naming import job_folder
from airflow_training.api.status import JobState
from airflow_training.exceptions import coded
from airflow_training.service.atomic_files import PACKAGE_PARENT
from airflow_training.service.database.models import now
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.runners.retries import after_supervisor
from airflow_training.service.runners.run_folder import (
    Exit,
    JobLimits,
    Outcome,
    RunnerKind,
    Spec,
    Started,
    SupervisorRecord,
    UnreadableRecord,
    is_canceled,
    is_supervised,
    request_cancel,
    try_lock,
    waiting,
)
from airflow_training.service.runners.supervisor import supervisor
from airflow_training.service.runners.supervisor.environment import clean_environment
from airflow_training.service.scheduling.job import JobKey, Order, Progress
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.bucket import Buckets

# Seconds between two supervisors of a job: one that cannot start must not keep the machine busy.
_PAUSE = 3.0
# The variable by which a job knows its id, whoever submitted it.
_JOB_ID = "TRAINING_JOB_ID"
# On the wire the completion time is free text, and early clients may have written anything. Such a job runs, but not
# forever: a day is longer than the longest time known from those clients, 20 hours.
_UNREAD_TIME = timedelta(days=1)


class SupervisedRunner(ABC):
    """Runs jobs under supervisors.

    All its state is in the run folders of the jobs: a restarted service goes on with it, and with jobs that another
    kind of runner started.

    Args:
        data: The data folder.
        buckets: Where the files of tenants are.
        disk: MB that a job may have in its folder.
        log: Bytes that the log of a job may have.
    """

    kind: ClassVar[RunnerKind]

    def __init__(self, data: DataFolder, buckets: Buckets, *, disk: int, log: int) -> None:
        self._data = data
        self._buckets = buckets
        self._disk = disk
        self._log = log
        self._children: dict[JobKey, subprocess.Popen[bytes]] = {}
        self._launched: dict[JobKey, float] = {}

    @abstractmethod
    def validation_error(self, description: JobDescription) -> InvalidDescription | None:
        """Return why a job cannot run here; None if it can."""

    @abstractmethod
    def _complete(self, spec: Spec, order: Order) -> Spec:
        """Add what only this kind of runner needs."""

    def start(self, order: Order) -> None:
        """Start the job's supervisor; if there is or was one, it ends at once and leaves the job alone."""
        state = self._state(order.key)
        if SupervisorRecord.exists(state):
            return
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._complete(self._spec(order), order).write(state)
        self._launch(order.key)

    def progress(self, key: JobKey) -> Progress:
        """Read from its run folder how far the job is."""
        # Checked first: what it wrote before it ended is then certainly found.
        alive = self._alive(key)
        try:
            return self._progress(key, alive=alive)
        except UnreadableRecord as error:
            # The supervisor of another version may well bring the job to its end.
            return Progress(JobState.RUNNING, str(error)) if alive else _failed(str(error))

    def cancel(self, key: JobKey) -> None:
        """Signal the supervisor to end the job."""
        state = self._state(key)
        request_cancel(state)
        with contextlib.suppress(UnreadableRecord, ProcessLookupError):
            taken_up, spec = SupervisorRecord.find(state), Spec.find(state)
            # The holder of the lock lives. Until it has written its process id, the one there is that of the supervisor
            # before; then it finds the request by itself.
            if taken_up and spec and taken_up.number >= spec.supervisor and is_supervised(state):
                os.kill(taken_up.pid, signal.SIGTERM)

    def _progress(self, key: JobKey, *, alive: bool) -> Progress:
        state = self._state(key)
        taken_up, started = SupervisorRecord.find(state), Started.find(state)
        over = Outcome.exists(state)
        container_id = started.container_id if started else ""
        if ended := Exit.find(state):
            self._launched.pop(key, None)
            return Progress(
                JobState(ended.state),
                ended.message,
                container_id,
                started=ended.started,
                finished=ended.finished,
                exit_code=ended.exit_code,
                log_bytes=ended.log_bytes,
            )
        if not alive and (lost := self._lost(key)):
            return lost
        if started:
            message = "the command has ended, its files are being copied to the bucket" if over else ""
            return Progress(JobState.RUNNING, message, container_id, started=started.at)
        preparing = waiting(state) or "preparing the job's environment"
        return Progress(JobState.PENDING, preparing if taken_up else "starting")

    def _spec(self, order: Order) -> Spec:
        execution = order.description.execution
        completion_time = read_duration(execution.completion_time)
        notes = []
        if order.allocated != order.requested:
            notes.append(f"The job requested {order.requested}, but the machine has less: it gets {order.allocated}.")
        if completion_time is None:
            notes.append(
                f"The completionTime {execution.completion_time!r} cannot be parsed: the job may run"
                f" for {_UNREAD_TIME.days} day."
            )
        return Spec(
            command=execution.command,
            env={_JOB_ID: order.key.job_id, **{each.name: each.text for each in order.description.env}},
            masks=list(order.description.masks or ()),
            files=self._buckets.location(order.key.tenant, job_folder(order.description.name, order.key.job_id)),
            limits=JobLimits(
                cpus=order.allocated.cpus,
                memory=order.allocated.memory,
                disk=self._disk,
                log=self._log,
                seconds=(completion_time or _UNREAD_TIME).total_seconds(),
            ),
            gpus=list(order.gpus),
            retries=execution.retries,
            runner=self.kind,
            notes=notes,
            model=order.description.model,
            python=execution.python_version or "",
        )

    def _launch(self, key: JobKey) -> None:
        state = self._state(key)
        self._launched[key] = time.monotonic()
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
        return key in self._children or (SupervisorRecord.exists(state) and is_supervised(state))

    def _lost(self, key: JobKey) -> Progress | None:
        """Handle a job whose supervisor ended before the job did; None if another supervisor takes it up."""
        state = self._state(key)
        if time.monotonic() < self._launched.get(key, float("-inf")) + _PAUSE:
            return None
        with try_lock(state) as free:
            # One that the service launched before its restart may have started, and even ended, just now.
            if not free or Exit.exists(state):
                return None
            taken_up, spec = SupervisorRecord.find(state), Spec.find(state)
            if not taken_up or not spec:
                if is_canceled(state):
                    return Progress(JobState.CANCELED, "canceled on request", finished=now())
                return _failed(
                    coded("the job's supervisor could not be started; its output is in supervisor.log", code="AT-462")
                )
            # If it is less, the supervisor that was to take it up did not come that far.
            # If the disk is full, the next one ends what was left, and comes again.
            if taken_up.number >= spec.supervisor:
                with contextlib.suppress(OSError):
                    after_supervisor(state, spec, taken_up).write(state)
        self._launch(key)
        return None


def _failed(message: str) -> Progress:
    return Progress(JobState.FAILED, message, finished=now())
