"""The statuses of jobs as those who watch them are told, kept in memory until they change."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from airflow_training.api.status import JobStatus
from airflow_training.service.runners.runner import JobKey
from airflow_training.service.scheduling.capacity import Machine
from airflow_training.service.scheduling.job_table import JobTable

# Some 40 MB.
_MOST = 50_000
# A connection that ends during a commit does not tell when it is made: what was read before is not kept for ever.
_LONGEST = 60.0
# Each start and each end changes the messages of all jobs that wait: they may be so old, or nothing else would be told.
_MESSAGES = 2.0


class KnownStatus(NamedTuple):
    """A status as it was read.

    Attributes:
        tag: Another one where anything of it is another.
        document: The status object, in JSON.
        waits: Whether the job waits for its turn: nothing of it ran, and its message depends on others.
        ended: Whether it will not change any more.
        queue: How often queue and machine had changed when it was read.
        read: When, by the monotonic clock.
    """

    tag: str
    document: str
    waits: bool
    ended: bool
    queue: tuple[int, int]
    read: float


class Statuses:
    """The statuses of jobs, from memory or from the job table.

    A job's status is forgotten when a change of it is announced; that of a job that waits is old when any job changes,
    or the machine does. That of a job that has ended is not kept: the command `prune` removes such jobs from outside.

    Args:
        jobs: The job table.
        machine: What jobs wait for.
    """

    def __init__(self, jobs: JobTable, machine: Machine) -> None:
        self._jobs = jobs
        self._machine = machine
        self._lock = threading.Lock()
        self._known: dict[JobKey, KnownStatus] = {}
        self._announced = 0
        # The jobs that have changed since a reading began: what it read of them may be old.
        self._changed_since: dict[object, set[JobKey]] = {}
        jobs.changes.listen(self._forget)

    def read(self, keys: Sequence[JobKey]) -> dict[JobKey, KnownStatus]:
        """The statuses of some jobs of one tenant, without those that it does not have."""
        reading, changed = object(), set[JobKey]()
        with self._lock:
            began, queue = time.monotonic(), (self._announced, self._machine.revision)
            known = {
                key: status
                for key in keys
                if (status := self._known.get(key)) and began - status.read < _limit(status, queue)
            }
            if len(known) == len(keys):
                return known
            self._changed_since[reading] = changed
        try:
            missing = [key for key in keys if key not in known]
            found = {key: _known(*facts, queue, began) for key, facts in self._jobs.read(missing).items()}
            with self._lock:
                self._known |= {key: status for key, status in found.items() if not status.ended and key not in changed}
                while len(self._known) > _MOST:
                    del self._known[next(iter(self._known))]
        finally:
            with self._lock:
                del self._changed_since[reading]
        return known | found

    def _forget(self, key: JobKey) -> None:
        with self._lock:
            self._announced += 1
            self._known.pop(key, None)
            for changed in self._changed_since.values():
                changed.add(key)


def _limit(status: KnownStatus, queue: tuple[int, int]) -> float:
    """How old a status may be."""
    return _MESSAGES if status.waits and status.queue != queue else _LONGEST


def _known(status: JobStatus, waits: bool, queue: tuple[int, int], read: float) -> KnownStatus:
    document = status.model_dump_json(by_alias=True)
    tag = blake2b(document.encode(), digest_size=6).hexdigest()
    return KnownStatus(tag, document, waits, status.state.ended, queue, read)
