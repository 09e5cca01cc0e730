"""What has to be seen to now and then: old jobs, old keys, and access that was taken away."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

from airflow_training.service.database import now
from airflow_training.service.job_table import JobTable
from airflow_training.service.settings import DataFolder

_logger = logging.getLogger(__name__)


class Housekeeping:
    """Does its duties every ten seconds, in a thread of its own.

    Args:
        duties: What is to be done. One that fails is tried again the next time, and holds up no other.
    """

    _INTERVAL = 10.0

    def __init__(self, duties: Sequence[Callable[[], object]]) -> None:
        self._duties = duties
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a duty that is under way is finished."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for duty in self._duties:
                _attempt(duty)
            self._stopping.wait(self._INTERVAL)


def _attempt(duty: Callable[[], object]) -> None:
    try:
        duty()
    except Exception:
        _logger.exception("A duty of the house failed; it is tried again.")


def prune(jobs: JobTable, data: DataFolder, days: float) -> int:
    """Remove the jobs that ended more than some days ago: their folders in the bucket, their logs, their status.

    Returns:
        How many there were.
    """
    old = jobs.finished_before(now() - timedelta(days=days))
    for key, name in old:
        folder = data.job_folder(key.tenant, name, key.job_id)
        if folder.is_symlink():  # a job can put one in its place, and what it points to is not the job's
            folder.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(data.job_state(*key), ignore_errors=True)
        # The last of all: what is interrupted is taken up again.
        jobs.remove(key)
    return len(old)
