"""The statuses that are kept in memory are those of the job table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from airflow_training.api.description import JobDescription
from airflow_training.api.status import JobState
from airflow_training.service.database.models import now, open_database
from airflow_training.service.runners.runner import JobKey, Progress
from airflow_training.service.scheduling.capacity import Machine
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.resources import Amount
from airflow_training.service.scheduling.status_cache import Statuses
from tests.patience import wait_for
from tests.service.support import close

JOB = {"job": {"name": "job", "execution": {"command": "true", "completionTime": "1h"}}}
KEY = JobKey("tenant", "job")
ASKED = Amount(1, 1, 0)


class Table(JobTable):
    """A job table that knows how often it was read, and in which jobs can change just after that."""

    readings = 0
    canceled_when_read = False

    def read(self, keys: Sequence[JobKey]) -> Any:
        found = super().read(keys)
        self.readings += 1
        if self.canceled_when_read:
            self.cancel(KEY)
        return found


@pytest.fixture
def machine() -> Machine:
    return Machine(Amount(1, 1024, 0), ())


@pytest.fixture
def jobs(sessions_url: str, machine: Machine) -> Iterator[Table]:
    sessions = open_database(sessions_url)
    table = Table(sessions, machine)
    table.submit(KEY, JobDescription.from_wire(JOB), ASKED)
    yield table
    close(sessions())


@pytest.fixture
def statuses(jobs: Table, machine: Machine) -> Statuses:
    return Statuses(jobs, machine)


def document(statuses: Statuses) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(statuses.read([KEY])[KEY].document)
    return read


def test_each_change_of_a_job_is_seen_at_once_and_what_did_not_change_is_not_read_again(
    jobs: Table, statuses: Statuses
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
    jobs.submit(KEY, JobDescription.from_wire(JOB), ASKED)
    assert document(statuses)["status"] == "PENDING"


def test_a_job_that_waits_is_told_soon_what_became_of_queue_and_machine(
    jobs: Table, machine: Machine, statuses: Statuses
) -> None:
    other = JobKey("other", "job")
    assert document(statuses)["message"] == "waiting for its turn, 0 jobs ahead"
    machine.take(other, ASKED)
    wait_for(lambda: document(statuses)["message"].startswith("waiting for 1 of 1 cpus"), "what it waits for")
    machine.give_back(other)
    wait_for(lambda: document(statuses)["message"].startswith("waiting for its turn"), "what it waits for")
    machine.closed = "waiting for disk space"
    wait_for(lambda: document(statuses)["message"] == "waiting for disk space", "what it waits for")
    readings = jobs.readings
    machine.closed = "waiting for disk space"
    document(statuses)
    assert jobs.readings == readings


def test_a_status_that_changes_while_it_is_read_is_read_again(jobs: Table, statuses: Statuses) -> None:
    jobs.canceled_when_read = True
    assert document(statuses)["status"] == "PENDING"
    assert document(statuses)["status"] == "CANCELED"


def test_the_statuses_that_are_kept_are_bounded(
    jobs: Table, statuses: Statuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_training.service.scheduling.status_cache._MOST", 2)
    keys = [JobKey("tenant", f"job-{number}") for number in range(4)]
    for key in keys:
        jobs.submit(key, JobDescription.from_wire(JOB), ASKED)
    assert list(statuses.read(keys)) == keys
    readings = jobs.readings
    statuses.read(keys[2:])
    assert jobs.readings == readings
    statuses.read(keys[:1])
    assert jobs.readings == readings + 1
