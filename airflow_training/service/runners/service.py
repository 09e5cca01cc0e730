"""Jobs that are each held by a supervisor, a process that outlives the service; what the supervisor runs may differ."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_training.api.description import JobDescription
from airflow_training.api.durations import read_duration
from airflow_training.api.naming import job_folder
from airflow_training.api.status import JobState
from airflow_training.exceptions import coded
from airflow_training.service.database.models import now
from airflow_training.service.durable_files import PACKAGE_PARENT, read_json, write_json
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.runners.run_folder import (
    CANCEL,
    EXIT,
    OUTCOME,
    PREPARING,
    SPECIFICATION,
    STARTED,
    SUPERVISOR,
    boot_id,
    is_supervised,
    lock_of,
)
from airflow_training.service.runners.runner import JobKey, Order, Progress
from airflow_training.service.runners.supervisor import supervisor
from airflow_training.service.runners.supervisor.environment import clean_environment
from airflow_training.service.runners.supervisor.limits import JobLimits
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.bucket import Buckets

# Seconds between two supervisors of a job: one that cannot come up must not keep the machine busy.
_PAUSE = 3.0
# So many supervisors of a job may end in a row before they have lived for so many seconds: a job that ends each of them
# must not do so for ever.
_MOST_IN_A_ROW = 100
_LIVED = 60.0
# On the wire the completion time is free form, and clients of the time may have written any words. Such a job runs, but
# not for ever: a day is longer than the longest time known from those clients, 20 hours.
_UNREAD_TIME = timedelta(days=1)


class SupervisedRunner(ABC):
    """Runs jobs under supervisors.

    All that it knows lies in the state folders of the jobs, so that a restarted service knows as much, and sees to
    jobs that were started in another place too.

    Args:
        data: The data folder.
        buckets: Where the files of tenants are.
        disk: MB that a job may have in its folder.
        log: Bytes that the log of a job may have.
    """

    def __init__(self, data: DataFolder, buckets: Buckets, *, disk: int, log: int) -> None:
        self._data = data
        self._buckets = buckets
        self._disk = disk
        self._log = log
        self._children: dict[JobKey, subprocess.Popen[bytes]] = {}
        self._launched: dict[JobKey, float] = {}

    @abstractmethod
    def objection(self, description: JobDescription) -> InvalidDescription | None:
        """Tell why a job cannot run here; None where it can."""

    @abstractmethod
    def _place(self, order: Order) -> dict[str, Any]:
        """What the specification needs for the place that the job runs in.

        `place` names its class, and `goes_on` tells whether an attempt there outlives its supervisor.
        """

    def start(self, order: Order) -> None:
        """Start the job's supervisor; where there is or was one, it ends at once and leaves the job alone."""
        state = self._state(order.key)
        if (state / SUPERVISOR).exists():
            return
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(state / SPECIFICATION, self._specification(order))
        self._launch(order.key)

    def look(self, key: JobKey) -> Progress:
        """Read how far the job is from its state folder."""
        state = self._state(key)
        # Whether it lives is asked first: what it wrote before it ended is then certainly found.
        alive = self._alive(key)
        taken_up = read_json(state / SUPERVISOR)
        started = read_json(state / STARTED)
        over = (state / OUTCOME).exists()
        ended = read_json(state / EXIT)
        holder = started["holder"] if started else ""
        if ended:
            self._launched.pop(key, None)
            return _ended(ended, holder)
        if not alive and (lost := self._lost(key)):
            return lost
        if started:
            message = "the command has ended, what it wrote is brought to the bucket" if over else ""
            return Progress(JobState.RUNNING, message, holder, started=_time(started["started"]))
        return Progress(JobState.PENDING, _preparing(state) if taken_up else "starting")

    def cancel(self, key: JobKey) -> None:
        """Tell the supervisor to end the job."""
        state = self._state(key)
        (state / CANCEL).touch()
        taken_up = read_json(state / SUPERVISOR)
        specification = read_json(state / SPECIFICATION)
        # Who holds the lock lives. Until it has written its process id, the one there is that of the supervisor before;
        # then it finds the wish by itself.
        if (
            taken_up
            and specification
            and taken_up["supervisor"] >= specification["supervisor"]
            and is_supervised(state)
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(taken_up["pid"], signal.SIGTERM)

    def _specification(self, order: Order) -> dict[str, Any]:
        execution = order.description.execution
        time = read_duration(execution.completion_time)
        limits = JobLimits(
            order.granted.cpus, order.granted.memory, self._disk, self._log, (time or _UNREAD_TIME).total_seconds()
        )
        notes = []
        if order.granted != order.asked:
            notes.append(
                f"The job asks for {order.asked.in_words()}; the machine has less and gives it"
                f" {order.granted.in_words()}."
            )
        if time is None:
            notes.append(
                f"The completionTime {execution.completion_time!r} is no time that is understood here: the job may run"
                f" for {_UNREAD_TIME.days} day."
            )
        place = self._place(order)
        return {
            "command": execution.command,
            "env": {variable.name: variable.text for variable in order.description.env},
            "masks": order.description.masks,
            "files": self._buckets.files(order.key.tenant, job_folder(order.description.name, order.key.job_id)),
            "limits": limits.to_dict(),
            "gpus": list(order.gpus),
            "retries": execution.retries,
            "supervisor": 1,
            "ended_soon": 0,
            "attempt": 1,
            "goes_on": False,
            **place,
            "notes": [*place.get("notes", ()), *notes],
        }

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
        return key in self._children or ((state / SUPERVISOR).exists() and is_supervised(state))

    def _lost(self, key: JobKey) -> Progress | None:
        """See to a job whose supervisor ended before the job did; None where another one takes it up."""
        state = self._state(key)
        if time.monotonic() < self._launched.get(key, float("-inf")) + _PAUSE:
            return None
        with lock_of(state) as held:
            # One that an earlier life of the service had launched may have come up, and even ended, just now.
            if not held or (state / EXIT).exists():
                return None
            taken_up = read_json(state / SUPERVISOR)
            specification = read_json(state / SPECIFICATION)
            if not taken_up or not specification:
                if (state / CANCEL).exists():
                    return Progress(JobState.CANCELED, "canceled on request", finished=now())
                why = coded(
                    "the job's supervisor could not be started; the log of the service tells why", code="AT-462"
                )
                return Progress(JobState.FAILED, why, finished=now())
            # Where it is less, the one that was to take it up did not come that far.
            # Where the disk is full, the next one ends what was left, and comes again.
            if taken_up["supervisor"] >= specification["supervisor"]:
                with contextlib.suppress(OSError):
                    left = _what_is_left(state, specification, taken_up)
                    write_json(state / SPECIFICATION, {**specification, **left})
        self._launch(key)
        return None


def _what_is_left(state: Path, specification: dict[str, Any], taken_up: dict[str, Any]) -> dict[str, Any]:
    """What the next supervisor is to do: go on with the attempt, make the next one, or end the job."""
    left: dict[str, Any] = {"supervisor": taken_up["supervisor"] + 1, "attempt": taken_up["attempt"], "notes": []}
    left["ended_soon"] = specification["ended_soon"] + 1 if time.time() - taken_up["at"] < _LIVED else 0
    if (state / OUTCOME).exists() or (specification["goes_on"] and left["ended_soon"] < _MOST_IN_A_ROW):
        return left
    if taken_up["boot"] != boot_id():
        why = coded("the machine was started anew while the job ran", code="AT-463")
    else:
        why = coded("the job's supervisor was ended while the job ran", code="AT-464")
    canceled = (state / CANCEL).exists()
    if not canceled and taken_up["attempt"] <= specification["retries"]:
        attempt = taken_up["attempt"] + 1
        return {**left, "attempt": attempt, "notes": [f"It is run again: {why}. This is attempt {attempt}."]}
    ended = JobState.CANCELED if canceled else JobState.FAILED
    message = "canceled on request" if canceled else why
    write_json(state / OUTCOME, {"state": ended.value, "message": message, "exit_code": None})
    return left


def _preparing(state: Path) -> str:
    said = ""
    with contextlib.suppress(FileNotFoundError):
        said = (state / PREPARING).read_text()
    return said or "preparing the job's environment"


def _ended(document: dict[str, Any], holder: str) -> Progress:
    return Progress(
        JobState(document["state"]),
        document["message"],
        holder,
        started=_time(document["started"]),
        finished=_time(document["finished"]),
        exit_code=document["exit_code"],
        log_bytes=document["log_bytes"],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
