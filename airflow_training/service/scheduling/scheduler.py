"""Starts jobs in turn, detects their ends and forwards cancellations to the runner."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from typing import Protocol

from airflow_training.api.description import JobDescription
from airflow_training.api.status import JobState
from airflow_training.exceptions import coded
from airflow_training.service.database.engine import DATABASE_UNAVAILABLE, reason
from airflow_training.service.database.models import now
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.http.prometheus import ServiceMetrics
from airflow_training.service.scheduling.capacity import MEGABYTE, Capacity
from airflow_training.service.scheduling.job import JobKey, Order, Progress
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.queue import next_job
from airflow_training.service.settings import DataFolder

_logger = logging.getLogger(__name__)


class Runner(Protocol):
    """Runs jobs in a way that survives the service.

    The scheduler calls it from one thread. No method waits for a job.
    """

    def validation_error(self, description: JobDescription) -> InvalidDescription | None:
        """Return why a job cannot run here; None if it can."""

    def start(self, order: Order) -> None:
        """Start a job; safe to repeat, after a restart of the service too: no job runs twice."""

    def progress(self, key: JobKey) -> Progress:
        """Return how far a job is. It has ended only when its log is complete."""

    def cancel(self, key: JobKey) -> None:
        """Request the end of a job; safe to repeat."""


class Scheduler:
    """Schedules in one thread of its own.

    Its state is disposable: after a restart, claimed jobs are read from the table again.

    Args:
        jobs: The job table.
        runner: Runs the jobs.
        capacity: The resources for jobs.
        metrics: Counts the jobs that end.
        data: The folder on whose disk jobs write.
        free_disk: MB that must be free there before a job is started.
    """

    # Seconds between two passes while jobs run.
    _INTERVAL = 0.1
    # The same while none runs; a failed pass is repeated, and the disk checked again, this soon.
    _IDLE_INTERVAL = 5.0
    # Seconds after which a pass is stuck.
    _STUCK = 60.0

    def __init__(
        self,
        jobs: JobTable,
        runner: Runner,
        capacity: Capacity,
        metrics: ServiceMetrics,
        *,
        data: DataFolder,
        free_disk: int,
    ) -> None:
        self._jobs = jobs
        self._runner = runner
        self._capacity = capacity
        self._metrics = metrics
        self._data = data
        self._free_disk = free_disk
        self._active: set[JobKey] = set()
        self._recorded: dict[JobKey, Progress] = {}
        self._wake_up = threading.Event()
        self._stopping = False
        self._last_pass = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    @property
    def works(self) -> bool:
        """Whether passes succeed; False if the last success is a minute ago."""
        return time.monotonic() - self._last_pass < self._STUCK

    def start(self) -> None:
        """Resume the claimed jobs and start the thread."""
        for order in self._jobs.claimed():
            self._capacity.allocate(order.key, order.allocated, order.gpus)
            self._begin(order)
        self._thread.start()

    def stop(self) -> None:
        """Stop scheduling; running jobs continue."""
        self._stopping = True
        self._wake_up.set()
        self._thread.join()

    def wake(self) -> None:
        """Start a pass now: a job was submitted or is to be canceled."""
        self._wake_up.set()

    def _run(self) -> None:
        unavailable = False
        while not self._stopping:
            try:
                self._pass()
                self._last_pass = time.monotonic()
                unavailable = False
            except DATABASE_UNAVAILABLE as error:
                # Logged once: passes are repeated ten times a second.
                if not unavailable:
                    _logger.error("No job starts and no end is detected until the database responds: %s", reason(error))
                unavailable = True
            except Exception:
                # If the thread ended here, no job would start or end any more.
                _logger.exception("A scheduler pass failed; it will be retried.")
            self._wake_up.wait(self._INTERVAL if self._active else self._IDLE_INTERVAL)
            self._wake_up.clear()

    def _pass(self) -> None:
        for key in self._jobs.to_be_canceled():
            self._attempt(self._runner.cancel, key)
        for key in list(self._active):
            self._attempt(self._update, key)
        self._capacity.blocked = self._capacity.unavailable or self._disk_is_full()
        while not self._capacity.blocked and (job := next_job(self._jobs.queue(), self._capacity)):
            order = None
            gpus = self._capacity.allocate(job.key, self._capacity.allocation(job.requested))
            try:
                order = self._jobs.claim(job.key, gpus)
            finally:
                if not order:
                    self._capacity.release(job.key)
            if order:
                self._begin(order)

    def _attempt(self, action: Callable[[JobKey], None], key: JobKey) -> None:
        """Act on one job; its errors do not affect other jobs."""
        try:
            action(key)
        except Exception:
            _logger.exception("The job %s of %s could not be updated; it will be retried.", key.job_id, key.tenant)

    def _disk_is_full(self) -> str:
        free = shutil.disk_usage(self._data.root).free // MEGABYTE
        if free >= self._free_disk:
            return ""
        return f"waiting for disk space: {free} MB are free, and {self._free_disk} MB are kept free"

    def _begin(self, order: Order) -> None:
        self._active.add(order.key)
        try:
            self._runner.start(order)
        except OSError as error:
            message = coded(f"the job could not be started: {error}", code="AT-461")
            self._end(order.key, Progress(JobState.FAILED, message, finished=now()))

    def _update(self, key: JobKey) -> None:
        progress = self._runner.progress(key)
        if progress.state.ended:
            self._end(key, progress)
        elif progress != self._recorded.get(key):
            self._jobs.record(key, progress)
            self._recorded[key] = progress

    def _end(self, key: JobKey, progress: Progress) -> None:
        self._jobs.record(key, progress)
        self._active.discard(key)
        self._recorded.pop(key, None)
        self._capacity.release(key)
        self._metrics.job_ended(progress, self._jobs.status(key))
