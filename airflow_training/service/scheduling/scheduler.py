"""Starts jobs when it is their turn, notices their ends and passes cancellations on."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable

from airflow_training.api.status import JobState
from airflow_training.exceptions import coded
from airflow_training.service.database.engine import AWAY, reason
from airflow_training.service.database.models import now
from airflow_training.service.http.prometheus import Metrics
from airflow_training.service.runners.runner import JobKey, Order, Progress, Runner
from airflow_training.service.scheduling.capacity import MEGABYTE, Machine
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.queue import startable
from airflow_training.service.settings import DataFolder

_logger = logging.getLogger(__name__)


class Scheduler:
    """Works in one thread of its own.

    What it knows can be lost at any moment: jobs that a runner had before are found in the table again.

    Args:
        jobs: The job table.
        runner: What runs them.
        machine: What they run on.
        metrics: Is told of starts and ends.
        data: The folder on whose disk jobs write.
        free_disk: MB that are to be free there before a job is started.
    """

    # Ends are noticed within this time while jobs run.
    _INTERVAL = 0.1
    # How soon a failed pass is repeated, and the disk looked at again, when nothing runs.
    _IDLE = 5.0
    # A pass that takes longer than this is stuck.
    _STUCK = 60.0

    def __init__(
        self, jobs: JobTable, runner: Runner, machine: Machine, metrics: Metrics, *, data: DataFolder, free_disk: int
    ) -> None:
        self._jobs = jobs
        self._runner = runner
        self._machine = machine
        self._metrics = metrics
        self._data = data
        self._free_disk = free_disk
        self._active: set[JobKey] = set()
        self._recorded: dict[JobKey, Progress] = {}
        self._news = threading.Event()
        self._stopping = False
        self._last_pass = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    @property
    def works(self) -> bool:
        """Whether jobs are being seen to."""
        return time.monotonic() - self._last_pass < self._STUCK

    def start(self) -> None:
        """Take up the jobs that are there."""
        for order in self._jobs.claimed():
            self._machine.take(order.key, order.granted, order.gpus)
            self._begin(order)
        self._thread.start()

    def stop(self) -> None:
        """Stop scheduling; jobs that run go on."""
        self._stopping = True
        self._news.set()
        self._thread.join()

    def wake(self) -> None:
        """Tell that a job was submitted or is to be canceled."""
        self._news.set()

    def _run(self) -> None:
        away = False
        while not self._stopping:
            try:
                self._pass()
                self._last_pass = time.monotonic()
                away = False
            except AWAY as error:
                # Said once: it is tried again ten times a second.
                if not away:
                    _logger.error("No job starts and no end is seen until the database answers: %s", reason(error))
                away = True
            except Exception:
                # A scheduler that ended here would leave every job as it is for ever.
                _logger.exception("A pass of the scheduler failed; it is repeated.")
            self._news.wait(self._INTERVAL if self._active else self._IDLE)
            self._news.clear()

    def _pass(self) -> None:
        for key in self._jobs.to_be_canceled():
            self._attempt(self._runner.cancel, key)
        for key in list(self._active):
            self._attempt(self._look, key)
        self._machine.closed = self._machine.away or self._disk_is_full()
        while not self._machine.closed and (job := startable(self._jobs.waiting(), self._machine)):
            order = None
            gpus = self._machine.take(job.key, self._machine.granted(job.asked))
            try:
                order = self._jobs.claim(job.key, gpus)
            finally:
                if not order:
                    self._machine.give_back(job.key)
            if order:
                self._begin(order)

    def _attempt(self, what: Callable[[JobKey], None], key: JobKey) -> None:
        """See to one job; what goes wrong with it is no matter of the others'."""
        try:
            what(key)
        except Exception:
            _logger.exception("The job %s of %s could not be seen to; that is tried again.", key.job_id, key.tenant)

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
            why = coded(f"the job could not be started: {error}", code="AT-461")
            self._end(order.key, Progress(JobState.FAILED, why, finished=now()))

    def _look(self, key: JobKey) -> None:
        progress = self._runner.look(key)
        if progress.state.ended:
            self._end(key, progress)
        elif progress != self._recorded.get(key):
            self._jobs.record(key, progress)
            self._recorded[key] = progress

    def _end(self, key: JobKey, progress: Progress) -> None:
        self._jobs.record(key, progress)
        self._active.discard(key)
        self._recorded.pop(key, None)
        self._machine.give_back(key)
        self._metrics.job_ended(progress, self._jobs.status(key))
