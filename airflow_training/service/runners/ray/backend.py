"""A job on a Ray cluster, on whichever of its nodes, which a client program submits and follows."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_training.service.runners.process.process_tree import Ended, Output
from airflow_training.service.runners.ray.frames import FrameReader
from airflow_training.service.runners.ray.note import RayNote
from airflow_training.service.runners.supervisor.backend import Program
from airflow_training.service.runners.supervisor.helper_notes import failure
from airflow_training.service.runners.supervisor.helper_process import ClientWatch, said
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.limits import OUT_OF_TIME, JobLimits, Watch
from airflow_training.service.runners.supervisor.staging import python_program, run_undisturbed
from airflow_training.service.runners.supervisor.usage_file import UsageFile

# Named and not imported: a supervisor, of which each job has one, needs nothing of what the client needs.
_CLIENT = "airflow_training.service.runners.ray.helper"

# The node sees to the time of a job. This many seconds later we do, should the node be out of reach.
_MARGIN = 120.0
# Seconds after which it is tried again to end a job.
_PAUSE = 5.0


class RayPlace:
    """Runs the command on a node of Ray, which fetches the job's files from S3 and brings back what the job wrote.

    Args:
        state: The state folder of the job.
        specification: What is to be run.
    """

    # The node takes the five seconds that a process has as well, and its answer some more.
    grace = 30.0

    def __init__(self, state: Path, specification: Mapping[str, Any]) -> None:
        self._state = state
        self._limits = JobLimits(**specification["limits"])

    @property
    def holder(self) -> str:
        """The id of the job in Ray."""
        note = RayNote.read(self._state)
        return f"ray-{note.submission_id}" if note else "ray"

    def output(self, log: JobLog, usage: UsageFile) -> Output:
        """The client hands on the frames that the node wrote, with its times."""
        self._log = log
        return FrameReader(log, usage.add)

    def watch(self) -> Watch:
        """Watch the client; the node limits the job."""
        seconds = None if self._limits.seconds is None else self._limits.seconds + _MARGIN
        return _RayWatch(replace(self._limits, seconds=seconds), self._state / "ray", self._state, self.clean)

    def prepare(self, run: Callable[[Program], Ended], say: Callable[[str], None]) -> Ended | None:
        """Submit the job, and wait until its command starts; the attempt before has brought back all it wrote."""
        if not RayNote.of_this_attempt(self._state):
            self.close(say)
            self._log.begin_frames()
        ended = run(self._client("start"))
        return said(ended) if ended.status or ended.overstepped or ended.stopped else None

    def program(self) -> Program:
        """The client that hands the job's output on, and ends as the command does."""
        return self._client("follow")

    def clean(self) -> None:
        """End the job, and have what it wrote brought back, however long Ray is away."""
        self.close(lambda _: None)

    def close(self, say: Callable[[str], None]) -> None:
        """Wait until what the job wrote has been brought back; the key that was lent to it ends then."""
        while not (done := run_undisturbed(self._client("end"))).ok:
            time.sleep(_PAUSE)
        if done.output:
            say(done.output)

    def _client(self, step: str) -> Program:
        return python_program(_CLIENT, step, str(self._state))


class _RayWatch(ClientWatch):
    """Knows of a job whose time was up on its node."""

    def enter(self) -> None:
        """Have SIGTERM wait until the client listens, which then stops the job and hands on its last words."""
        super().enter()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    @property
    def time_is_up(self) -> bool:
        """Whether the job has run for as long as it may."""
        return super().time_is_up or failure(self._state) == OUT_OF_TIME
