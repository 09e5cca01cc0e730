"""The serialized statuses of jobs, kept in memory until they change."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from airflow_training.api.status import JobStatus
from airflow_training.service.scheduling.capacity import Capacity
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.scheduling.job_table import JobTable

# About 40 MB.
_MOST = 50_000
# Seconds that a status is kept: if a connection is lost during a commit, nobody knows when the change is made.
_MAX_AGE = 60.0
# Seconds that the message of a waiting job may be outdated: every start and every end changes those of all that wait.
_MAX_MESSAGE_AGE = 2.0


class CachedStatus(NamedTuple):
    """A status as it was read.

    Attributes:
        etag: Changes with the document.
        document: The status object, in JSON.
        waiting: Whether the job is in the queue: nothing of it has run, and its message depends on other jobs.
        ended: Whether the status is final.
        queue_version: The numbers of changes of the queue and of the capacity before it was read.
        read_at: Seconds of the monotonic clock.
    """

    etag: str
    document: str
    waiting: bool
    ended: bool
    queue_version: tuple[int, int]
    read_at: float


class StatusCache:
    """The statuses of jobs, from memory or from the job table.

    A job's status is dropped when a change of it is published. That of a waiting job is outdated when any job, or the
    capacity, changes. Final statuses are not kept: the command `prune` removes such jobs in another process.

    Args:
        jobs: The job table.
        capacity: The resources that jobs wait for.
    """

    def __init__(self, jobs: JobTable, capacity: Capacity) -> None:
        self._jobs = jobs
        self._capacity = capacity
        self._lock = threading.Lock()
        self._statuses: dict[JobKey, CachedStatus] = {}
        self._changes = 0
        # For each read that is under way, the jobs that have changed since it began: its result may be outdated.
        self._changed_since: dict[object, set[JobKey]] = {}
        jobs.changes.add_listener(self._invalidate)

    def read(self, keys: Sequence[JobKey]) -> dict[JobKey, CachedStatus]:
        """The statuses of jobs of one tenant, without jobs that it does not have."""
        reading, changed = object(), set[JobKey]()
        with self._lock:
            began, version = time.monotonic(), (self._changes, self._capacity.revision)
            cached = {
                key: status
                for key in keys
                if (status := self._statuses.get(key)) and began - status.read_at < _max_age(status, version)
            }
            if len(cached) == len(keys):
                return cached
            self._changed_since[reading] = changed
        try:
            missing = [key for key in keys if key not in cached]
            found = {
                key: _serialize(status, waiting, version, began)
                for key, (status, waiting) in self._jobs.read(missing).items()
            }
            with self._lock:
                self._statuses |= {
                    key: status for key, status in found.items() if not status.ended and key not in changed
                }
                while len(self._statuses) > _MOST:
                    del self._statuses[next(iter(self._statuses))]
        finally:
            with self._lock:
                del self._changed_since[reading]
        return cached | found

    def _invalidate(self, key: JobKey) -> None:
        with self._lock:
            self._changes += 1
            self._statuses.pop(key, None)
            for changed in self._changed_since.values():
                changed.add(key)


def _max_age(status: CachedStatus, version: tuple[int, int]) -> float:
    return _MAX_MESSAGE_AGE if status.waiting and status.queue_version != version else _MAX_AGE


def _serialize(status: JobStatus, waiting: bool, version: tuple[int, int], read_at: float) -> CachedStatus:
    document = status.model_dump_json(by_alias=True)
    etag = blake2b(document.encode(), digest_size=6).hexdigest()
    return CachedStatus(etag, document, waiting, status.state.ended, version, read_at)
