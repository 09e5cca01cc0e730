"""The backend that runs a job on a node of a Ray cluster, by a helper process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from airflow_training.service.runners.ray.frames import FrameReader
from airflow_training.service.runners.run_folder import Spec, Submission, failure
from airflow_training.service.runners.supervisor.backend import Backend
from airflow_training.service.runners.supervisor.helper import (
    HelperLimiter,
    check_helper,
    helper_program,
    run_uninterrupted,
)
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.process_tree import Ended, Output, Program
from airflow_training.service.runners.supervisor.time_and_disk_limits import OUT_OF_TIME, Limiter
from airflow_training.service.runners.supervisor.usage import UsageFile

# Not imported: each job has a supervisor, which must stay free of the HTTP client.
_HELPER = "airflow_training.service.runners.ray.submit_and_follow"

# The node enforces the time limit. The supervisor does so this many seconds later, in case the node is unreachable.
_TIME_MARGIN = 120.0
# Seconds between attempts to end a job.
_RETRY_INTERVAL = 5.0


class RayBackend(Backend):
    """Runs the command on a node of Ray, which copies the job's files from S3 and back.

    Args:
        state: The run folder of the job.
        spec: The job.
    """

    # A process has five seconds; the rest is for Ray's signal and the node's report.
    grace = 30.0

    def __init__(self, state: Path, spec: Spec) -> None:
        self._state = state
        self._limits = spec.limits

    @property
    def name(self) -> str:
        """The id of the job in Ray."""
        submission = Submission.find(self._state)
        return f"ray-{submission.submission_id}" if submission else "ray"

    def output(self, log: JobLog, usage: UsageFile) -> Output:
        """Decode the node's frames, which the helper forwards."""
        self._log = log
        return FrameReader(log, usage.add)

    def limiter(self) -> Limiter:
        """Limit the helper; the node enforces the limits of the job."""
        seconds = None if self._limits.seconds is None else self._limits.seconds + _TIME_MARGIN
        return _RayLimiter(replace(self._limits, seconds=seconds), self._state / "ray", self._state, self.clean)

    def prepare(self, run: Callable[[Program], Ended], emit: Callable[[str], None]) -> Ended | None:
        """Submit the job, and wait until its command starts; first, complete the previous attempt."""
        if not Submission.of_current_attempt(self._state):
            self.close(emit)
            self._log.begin_frames()
        return check_helper(run(self._helper("start")))

    def program(self) -> Program:
        """The helper that forwards the job's output and exit status."""
        return self._helper("follow")

    def clean(self) -> None:
        """End the job in Ray, and wait until its files are copied back."""
        self.close(lambda _: None)

    def close(self, emit: Callable[[str], None]) -> None:
        """Wait until the job's files are copied back, and revoke its temporary credentials."""
        while not (done := run_uninterrupted(self._helper("end"))).ok:
            time.sleep(_RETRY_INTERVAL)
        if done.output:
            emit(done.output)

    def _helper(self, step: str) -> Program:
        return helper_program(_HELPER, step, str(self._state))


class _RayLimiter(HelperLimiter):
    """Recognizes a time-out on the node."""

    def enter(self) -> None:
        """Block SIGTERM until the helper handles it: it stops the job and forwards its last output."""
        super().enter()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    @property
    def timed_out(self) -> bool:
        """Whether the job has reached its time limit."""
        return super().timed_out or failure(self._state) == OUT_OF_TIME
