"""Which job runs when: first come, first served, while the machine has cpus for it."""

from __future__ import annotations

import logging
import threading

from airflow_training.jobs.status import JobState
from airflow_training.service.database import now
from airflow_training.service.job_table import JobTable
from airflow_training.service.runners.runner import JobKey, Order, Progress, Runner

_logger = logging.getLogger(__name__)


class Scheduler:
    """Starts jobs, notices their ends and passes cancellations on, in one thread of its own.

    What it knows can be lost at any moment: jobs that a runner had before are found in the table again.

    Args:
        jobs: The job table.
        runner: What runs them.
        cpus: How many the machine has.
    """

    # Ends are noticed within this time while jobs run.
    _INTERVAL = 0.1
    # How soon a failed pass is repeated when nothing runs.
    _IDLE = 5.0

    def __init__(self, jobs: JobTable, runner: Runner, cpus: int) -> None:
        self._jobs = jobs
        self._runner = runner
        self._cpus = cpus
        self._active: dict[JobKey, Order] = {}
        self._recorded: dict[JobKey, Progress] = {}
        self._news = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Take up the jobs that are there."""
        for order in self._jobs.claimed():
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
        while not self._stopping:
            try:
                self._pass()
            except Exception:
                # A scheduler that ended here would leave every job as it is for ever.
                _logger.exception("A pass of the scheduler failed; it is repeated.")
            self._news.wait(self._INTERVAL if self._active else self._IDLE)
            self._news.clear()

    def _pass(self) -> None:
        for key in self._jobs.to_be_canceled():
            self._runner.cancel(key)
        for key in list(self._active):
            self._look(key)
        while (order := self._jobs.next_waiting()) and self._fits(order):
            if self._jobs.claim(order.key):
                self._begin(order)

    def _fits(self, order: Order) -> bool:
        # A job that wants more than there is would wait for ever: it gets the machine for itself.
        used = sum(active.cpus for active in self._active.values())
        return not self._active or used + order.cpus <= self._cpus

    def _begin(self, order: Order) -> None:
        self._active[order.key] = order
        try:
            self._runner.start(order)
        except OSError as error:
            self._end(order.key, Progress(JobState.FAILED, f"the job could not be started: {error}", finished=now()))

    def _look(self, key: JobKey) -> None:
        progress = self._runner.look(key)
        if progress.state.ended:
            self._end(key, progress)
        elif progress != self._recorded.get(key):
            self._jobs.record(key, progress)
            self._recorded[key] = progress

    def _end(self, key: JobKey, progress: Progress) -> None:
        self._jobs.record(key, progress)
        del self._active[key]
        self._recorded.pop(key, None)
