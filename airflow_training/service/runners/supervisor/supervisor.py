"""The process that runs one job and outlives the service: `python -m … <run folder of the job>`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import partial
from importlib import import_module
from pathlib import Path

from airflow_training.exceptions import coded
from airflow_training.service.runners.retries import has_retry, pause_before
from airflow_training.service.runners.run_folder import (
    Exit,
    Outcome,
    Spec,
    Started,
    SupervisorRecord,
    UnreadableRecord,
    boot_id,
    is_canceled,
    wait_for_lock,
)
from airflow_training.service.runners.supervisor.backend import Backend, BackendFailed
from airflow_training.service.runners.supervisor.job_log import TEXT_FILE, JobLog
from airflow_training.service.runners.supervisor.process_tree import ProcessTree, adopt_orphans
from airflow_training.service.runners.supervisor.secret_masks import Masks
from airflow_training.service.runners.supervisor.time_and_disk_limits import Limiter
from airflow_training.service.runners.supervisor.usage import Sampler, UsageFile

# Only the one of this job is imported: there is a supervisor for each job.
_BACKENDS = {
    "process": ("airflow_training.service.runners.process.backend", "ProcessBackend"),
    "container": ("airflow_training.service.runners.container.backend", "ContainerBackend"),
    "ray": ("airflow_training.service.runners.ray.backend", "RayBackend"),
}


def main(state: Path) -> None:
    """Run the job of a run folder, unless another supervisor has taken it up instead."""
    with wait_for_lock(state):
        if Exit.exists(state):
            return
        try:
            spec, before = Spec.read(state), SupervisorRecord.find(state)
        except UnreadableRecord as error:
            log = state / TEXT_FILE
            size = log.stat().st_size if log.exists() else 0
            Exit(state="FAILED", message=str(error), started=None, finished=_now(), log_bytes=size).write(state)
            return
        module, name = _BACKENDS[spec.runner]
        backend: Backend = getattr(import_module(module), name)(state, spec)
        if before and not spec.outlives_supervisor:
            backend.clean()
        if before and before.number >= spec.supervisor:
            return
        Supervisor(state, spec, backend).run()


class Supervisor:
    """Runs one job.

    Args:
        state: Its run folder.
        spec: What to run; if there is an outcome, only what is left is done.
        backend: Where it runs.
    """

    def __init__(self, state: Path, spec: Spec, backend: Backend) -> None:
        self._state = state
        self._spec = spec
        self._backend = backend
        self._attempt = spec.attempt
        self._masks = Masks(spec.masks)
        self._log = JobLog(state, spec.limits.log, resumable=spec.outlives_supervisor, masks=self._masks)
        usage = UsageFile(state)
        sampler = Sampler(usage.add, spec.gpus)
        self._tree = ProcessTree(backend.output(self._log, usage), backend.grace, sampler)
        if spec.outlives_supervisor:
            signal.signal(signal.SIGTERM, lambda *_: self._leave())

    def run(self) -> None:
        """Prepare, run the command, again if need be, and record how it ended."""
        adopt_orphans()
        # From here on a signal is received; an earlier request is found below.
        self._take_up()
        if is_canceled(self._state):
            self._tree.stop()
        for note in self._spec.notes:
            self._log.emit(note)
        if outcome := Outcome.find(self._state) or self._attempt_until_done():
            outcome = replace(outcome, message=self._masks.mask(outcome.message))
            self._write(outcome)
            self._backend.close(self._log.emit)
        if self._log.dropped:
            self._log.emit(f"{self._log.dropped} bytes of output were lost, see above.")
        size = self._log.size
        self._log.close()
        if outcome:
            started = Started.find(self._state)
            at = started.at if started else None
            self._write(Exit(**asdict(outcome), started=at, finished=_now(), log_bytes=size))

    def _write(self, outcome: Outcome) -> None:
        """Record how the job ended, which must not be lost to a disk that is full for a while."""
        while True:
            with contextlib.suppress(OSError):
                outcome.write(self._state)
                return
            time.sleep(1)

    def _leave(self) -> None:
        """Cancel the job on request; if the machine shuts down, leave it to the next supervisor."""
        if not is_canceled(self._state):
            os._exit(0)
        self._tree.stop()

    def _take_up(self) -> None:
        SupervisorRecord(os.getpid(), self._spec.supervisor, self._attempt, boot_id(), time.time()).write(self._state)

    def _attempt_until_done(self) -> Outcome | None:
        """Run the job as often as it may be; None if another supervisor is to make the next attempt."""
        while True:
            limiter = self._backend.limiter()
            try:
                outcome, final = self._run(limiter)
            except BackendFailed as error:
                outcome, final = Outcome("FAILED", str(error)), False
            except (OSError, subprocess.SubprocessError) as error:
                why = coded(f"the command could not be started: {error}", code="AT-457")
                outcome, final = Outcome("FAILED", why), True
            finally:
                limiter.close()
            if final or not has_retry(self._spec, self._attempt):
                return outcome
            self._log.emit(
                f"Attempt {self._attempt} failed: {outcome.message}. The job runs again, attempt {self._attempt + 1} of"
                f" {self._spec.retries + 1}."
            )
            if self._tree.stopping:
                return None
            self._attempt += 1
            self._take_up()
            self._tree.pause(pause_before(self._attempt))

    def _run(self, limiter: Limiter) -> tuple[Outcome, bool]:
        """Run the job once; returns how that ended, and whether that is final."""
        started = Started.find(self._state)
        if not started or started.attempt < self._attempt:
            ended = self._backend.prepare(partial(self._tree.run_unless_stopping, limiter=limiter), self._log.emit)
            if ended and ended.exceeded:
                return Outcome("FAILED", ended.exceeded), limiter.timed_out
            if self._tree.stopping:
                return self._stopped(None)
        # Else the supervisor before us had come that far.
        limiter.start_clock()
        ended = self._tree.run(self._backend.program(), limiter, self._on_start)
        if ended.stopped:
            return self._stopped(ended.status)
        if ended.exceeded:
            # More time would be needed again.
            return Outcome("FAILED", ended.exceeded, ended.status), limiter.timed_out
        if ended.status == 0:
            return Outcome("SUCCEEDED", exit_code=0), True
        return Outcome("FAILED", coded(f"the command {in_words(ended.status)}", code="AT-451"), ended.status), False

    def _on_start(self, pid: int) -> None:
        known = Started.find(self._state)
        if not known or known.attempt < self._attempt:
            Started(f"{self._backend.name}-{pid}", _now(), self._attempt).write(self._state)
            self._log.emit(f"Running: {self._spec.command}")

    def _stopped(self, status: int | None) -> tuple[Outcome, bool]:
        if is_canceled(self._state):
            return Outcome("CANCELED", "canceled on request", status), True
        why = coded("the job's supervisor received SIGTERM, as at a shutdown of the machine", code="AT-465")
        return Outcome("FAILED", why, status), False


def in_words(status: int) -> str:
    """Say how a command ended.

    >>> in_words(3), in_words(-9), in_words(137)[:25]
    ('exited with status 3', 'was killed by signal 9 (SIGKILL)', 'exited with status 137: a')
    """
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else "a real-time signal"
        return f"was killed by signal {-status} ({name})"
    if status - 128 in {signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGBUS}:
        name = signal.Signals(status - 128).name
        return f"exited with status {status}: a program of it was killed by signal {status - 128} ({name})"
    return f"exited with status {status}"


def _now() -> datetime:
    return datetime.now(timezone.utc)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
