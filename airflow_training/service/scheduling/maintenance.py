"""What has to be seen to now and then: old jobs, old keys, and access that was taken away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

from airflow_training.api.naming import job_folder
from airflow_training.service.database.engine import AWAY, reason
from airflow_training.service.database.models import now
from airflow_training.service.errors import StorageAway
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.bucket import Buckets, remove_folder

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
    except AWAY as error:
        _logger.error("A duty of the house waits for the database: %s", reason(error))
    except Exception:
        _logger.exception("A duty of the house failed; it is tried again.")


def prune(jobs: JobTable, data: DataFolder, buckets: Buckets, days: float) -> int:
    """Remove the jobs that ended more than some days ago: their folders in the bucket, their logs, their status.

    Returns:
        How many there were.
    """
    end = now() - timedelta(days=days)
    names = jobs.names()
    old = {key: name for key, (name, finished) in names.items() if finished and finished < end}
    # Two jobs can have one folder: "a" with the id "b-c" and "a-b" with the id "c".
    kept = {(key.tenant, job_folder(name, key.job_id)) for key, (name, _) in names.items() if key not in old}
    removed = 0
    for key, name in old.items():
        place = (key.tenant, job_folder(name, key.job_id))
        try:
            gone = place in kept or buckets.remove(*place)
        except StorageAway as error:
            _logger.warning("Old jobs are not removed: %s", error)
            break
        if gone and remove_folder(data.job_state(*key)):
            # The last of all: what is interrupted, or cannot be removed now, is taken up again.
            jobs.remove(key)
            removed += 1
    return removed
