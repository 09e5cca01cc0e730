"""The cached statuses are those of the job table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from airflow_training.api.description import JobDescription
from airflow_training.api.resources import Resources
from airflow_training.api.status import JobState
from airflow_training.service.database.models import now, open_database
from airflow_training.service.scheduling.capacity import Capacity
from airflow_training.service.scheduling.job import JobKey, Progress
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.status_cache import StatusCache
from tests.patience import wait_for
from tests.service.support import close

JOB = {"job": {"name": "job", "execution": {"command": "true", "completionTime": "1h"}}}
KEY = JobKey("tenant", "job")
REQUESTED = Resources(1, 1, 0)


class Table(JobTable):
    """A job table that counts its reads, and that can cancel the job just after one."""

    readings = 0
    canceled_when_read = False

    def read(self, keys: Sequence[JobKey]) -> Any:
        found = super().read(keys)
        self.readings += 1
        if self.canceled_when_read:
            self.cancel(KEY)
        return found


@pytest.fixture
def capacity() -> Capacity:
    return Capacity(Resources(1, 1024, 0), ())


@pytest.fixture
def jobs(sessions_url: str, capacity: Capacity) -> Iterator[Table]:
    sessions = open_database(sessions_url)
    table = Table(sessions, capacity)
    table.submit(KEY, JobDescription.from_wire(JOB), REQUESTED)
    yield table
    close(sessions())


@pytest.fixture
def statuses(jobs: Table, capacity: Capacity) -> StatusCache:
    return StatusCache(jobs, capacity)


def document(statuses: StatusCache) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(statuses.read([KEY])[KEY].document)
    return read


def test_each_change_of_a_job_is_seen_at_once_and_an_unchanged_status_is_not_read_again(
    jobs: Table, statuses: StatusCache
) -> None:
    changes: dict[str, Callable[[], object]] = {
        "claimed": lambda: jobs.claim(KEY, ()),
        "running": lambda: jobs.record(KEY, Progress(JobState.RUNNING, started=now())),
        "ended": lambda: jobs.record(KEY, Progress(JobState.SUCCEEDED, started=now(), finished=now())),
    }
    for what, change in changes.items():
        before = document(statuses), jobs.readings
        assert (document(statuses), jobs.readings) == before, what
        change()
        assert document(statuses) == jobs.status(KEY).to_wire() != before[0], what
    jobs.remove(KEY)
    assert statuses.read([KEY]) == {}
    jobs.submit(KEY, JobDescription.from_wire(JOB), REQUESTED)
    assert document(statuses)["status"] == "PENDING"


def test_the_message_of_a_waiting_job_soon_follows_the_queue_and_the_capacity(
    jobs: Table, capacity: Capacity, statuses: StatusCache
) -> None:
    other = JobKey("other", "job")
    assert document(statuses)["message"] == "waiting for its turn, 0 jobs ahead"
    capacity.allocate(other, REQUESTED)
    wait_for(lambda: document(statuses)["message"].startswith("waiting for 1 of 1 CPUs"), "what it waits for")
    capacity.release(other)
    wait_for(lambda: document(statuses)["message"].startswith("waiting for its turn"), "what it waits for")
    capacity.blocked = "waiting for disk space"
    wait_for(lambda: document(statuses)["message"] == "waiting for disk space", "what it waits for")
    readings = jobs.readings
    capacity.blocked = "waiting for disk space"
    document(statuses)
    assert jobs.readings == readings


def test_a_status_that_changes_while_it_is_read_is_read_again(jobs: Table, statuses: StatusCache) -> None:
    jobs.canceled_when_read = True
    assert document(statuses)["status"] == "PENDING"
    assert document(statuses)["status"] == "CANCELED"


def test_the_size_of_the_cache_is_limited(jobs: Table, statuses: StatusCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_training.service.scheduling.status_cache._MOST", 2)
    keys = [JobKey("tenant", f"job-{number}") for number in range(4)]
    for key in keys:
        jobs.submit(key, JobDescription.from_wire(JOB), REQUESTED)
    assert list(statuses.read(keys)) == keys
    readings = jobs.readings
    statuses.read(keys[2:])
    assert jobs.readings == readings
    statuses.read(keys[:1])
    assert jobs.readings == readings + 1
