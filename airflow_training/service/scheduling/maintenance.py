"""Periodic maintenance: removal of old jobs, expired keys and revoked access."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

from airflow_training.api.naming import job_folder
from airflow_training.service.database.engine import DATABASE_UNAVAILABLE, reason
from airflow_training.service.database.models import now
from airflow_training.service.errors import StorageUnavailable
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.bucket import Buckets
from airflow_training.service.storage.job_files import remove_folder

_logger = logging.getLogger(__name__)


class PeriodicMaintenance:
    """Runs tasks every ten seconds, in a thread of its own.

    Args:
        tasks: A task that fails is repeated the next time, and holds up no other.
    """

    _INTERVAL = 10.0

    def __init__(self, tasks: Sequence[Callable[[], object]]) -> None:
        self._tasks = tasks
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the task that is running."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for task in self._tasks:
                _attempt(task)
            self._stopping.wait(self._INTERVAL)


def _attempt(task: Callable[[], object]) -> None:
    try:
        task()
    except DATABASE_UNAVAILABLE as error:
        _logger.error("A maintenance task waits for the database: %s", reason(error))
    except Exception:
        _logger.exception("A maintenance task failed; it will be retried.")


def prune(jobs: JobTable, data: DataFolder, buckets: Buckets, days: float) -> int:
    """Remove the jobs that ended more than `days` ago: their folders in the bucket, their logs, their status.

    Returns:
        The number of removed jobs.
    """
    end = now() - timedelta(days=days)
    names = jobs.names()
    old = {key: name for key, (name, finished) in names.items() if finished and finished < end}
    # Two jobs can have one folder: "a" with the id "b-c" and "a-b" with the id "c".
    kept = {(key.tenant, job_folder(name, key.job_id)) for key, (name, _) in names.items() if key not in old}
    removed = 0
    for key, name in old.items():
        folder = (key.tenant, job_folder(name, key.job_id))
        try:
            gone = folder in kept or buckets.remove(*folder)
        except StorageUnavailable as error:
            _logger.warning("Old jobs are not removed: %s", error)
            break
        if gone and remove_folder(data.job_state(*key)):
            # Last, so that an interrupted or failed removal is repeated.
            jobs.remove(key)
            removed += 1
    return removed
