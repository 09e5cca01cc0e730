"""Scheduling with a runner that runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from airflow_training.api.description import JobDescription
from airflow_training.api.resources import Resources
from airflow_training.api.status import JobState
from airflow_training.service.database.models import now, open_database
from airflow_training.service.errors import ApiError
from airflow_training.service.http.prometheus import ServiceMetrics
from airflow_training.service.scheduling import job_table
from airflow_training.service.scheduling.capacity import Capacity
from airflow_training.service.scheduling.job import JobKey, Order, Progress
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.scheduler import Scheduler
from airflow_training.service.settings import DataFolder
from tests.service.support import on_both

pytestmark = on_both

TOTAL = Resources(cpus=4, memory=1000, gpus=2)


class FakeRunner:
    """A runner whose jobs have the progress that the test sets."""

    def __init__(self) -> None:
        self.jobs: dict[JobKey, Progress] = {}
        self.canceled: list[JobKey] = []
        self.gpus: dict[str, tuple[str, ...]] = {}

    def validation_error(self, description: JobDescription) -> None:
        return None

    def start(self, order: Order) -> None:
        if order.key.job_id == "unlucky":
            raise OSError(28, "No space left on device")
        self.jobs[order.key] = Progress(JobState.RUNNING)
        self.gpus[order.key.job_id] = order.gpus

    def progress(self, key: JobKey) -> Progress:
        return self.jobs[key]

    def cancel(self, key: JobKey) -> None:
        self.canceled.append(key)

    def running(self) -> set[str]:
        return {key.job_id for key, progress in self.jobs.items() if progress.state is JobState.RUNNING}


class Play:
    """A scheduler with four cpus and two gpus, whose passes the test starts."""

    def __init__(self, sessions: sessionmaker[Session], data: DataFolder) -> None:
        self.data = data
        self.sessions = sessions
        self.runner = FakeRunner()
        self.start_service()

    def start_service(self, total: Resources = TOTAL, free_disk: int = 0) -> None:
        capacity = Capacity(total, [f"{index}" for index in range(total.gpus)])
        self.jobs = JobTable(self.sessions, capacity)
        metrics = ServiceMetrics(self.jobs)
        self.scheduler = Scheduler(self.jobs, self.runner, capacity, metrics, data=self.data, free_disk=free_disk)

    def submit(self, job_id: str, cpus: int = 1, memory: int = 1, gpus: int = 0) -> JobKey:
        description = JobDescription.from_wire({"name": "a", "execution": {"command": "true", "completionTime": 1}})
        key = JobKey("tenant", job_id)
        self.jobs.submit(key, description, Resources(cpus, memory, gpus))
        return key

    def message(self, key: JobKey) -> str:
        return self.jobs.status(key).message

    def finish(self, key: JobKey) -> None:
        self.runner.jobs[key] = Progress(JobState.SUCCEEDED, finished=now())

    def run_passes(self) -> set[str]:
        self.scheduler._pass()
        self.scheduler._pass()
        return self.runner.running()


@pytest.fixture
def play(sessions_url: str, tmp_path: Path) -> Iterator[Play]:
    sessions = open_database(sessions_url)
    yield Play(sessions, DataFolder(tmp_path))
    with sessions() as session:
        session.get_bind().engine.dispose()


def test_jobs_start_while_there_are_cpus_for_them(play: Play) -> None:
    first = play.submit("a", cpus=3)
    play.submit("b", cpus=1)
    play.submit("c", cpus=1)
    assert play.run_passes() == {"a", "b"}
    play.finish(first)
    assert play.run_passes() == {"b", "c"}


def test_a_big_job_is_not_overtaken_forever(play: Play) -> None:
    small = [play.submit(f"small-{number}") for number in range(2)]
    assert play.run_passes() == {"small-0", "small-1"}
    play.submit("big", cpus=4)
    play.submit("late", cpus=1)
    assert play.run_passes() == {"small-0", "small-1"}
    for key in small:
        play.finish(key)
    assert play.run_passes() == {"big"}


def test_a_job_that_waits_for_a_gpu_does_not_hold_up_jobs_without_gpus(play: Play) -> None:
    first = play.submit("first", gpus=2)
    play.run_passes()
    second = play.submit("second", cpus=2, gpus=1)
    play.submit("big", cpus=2)
    small = play.submit("small")
    assert play.run_passes() == {"first"}, "the three free cpus are reserved for the two earlier jobs"
    assert play.message(second) == "waiting for 1 of 2 GPUs, 0 jobs ahead"
    assert play.message(small) == "waiting for its turn, 2 jobs ahead"
    play.jobs.cancel(JobKey("tenant", "big"))
    assert play.run_passes() == {"first", "small"}
    play.finish(first)
    assert play.run_passes() == {"second", "small"}


def test_each_gpu_is_allocated_to_one_job_only_also_after_a_restart(play: Play) -> None:
    first, second = play.submit("first", gpus=1), play.submit("second", gpus=1)
    play.run_passes()
    assert play.runner.gpus == {"first": ("0",), "second": ("1",)}
    play.finish(first)
    play.run_passes()
    play.start_service()
    for order in play.jobs.claimed():
        play.scheduler._capacity.allocate(order.key, order.allocated, order.gpus)
        play.scheduler._begin(order)
    play.submit("third", gpus=1)
    play.run_passes()
    assert play.runner.gpus["second"] == ("1",)
    assert play.runner.gpus["third"] == ("0",)
    play.finish(second)


def test_jobs_start_while_there_is_memory_for_them(play: Play) -> None:
    first = play.submit("first", memory=600)
    second = play.submit("second", memory=600)
    assert play.run_passes() == {"first"}
    assert play.message(second) == "waiting for 600 of 1000 MB of memory, 0 jobs ahead"
    play.finish(first)
    assert play.run_passes() == {"second"}


def test_a_job_for_a_larger_machine_waits_for_it_and_does_not_hold_up_others(play: Play) -> None:
    key = play.submit("gpu", gpus=2)
    play.start_service(replace(TOTAL, gpus=1))
    play.submit("small")
    assert play.run_passes() == {"small"}
    assert play.message(key) == "requests 2 GPUs, but this machine has 1: waiting for a service with more"


def test_no_job_starts_on_a_full_disk(play: Play) -> None:
    play.start_service(free_disk=10**9)
    key = play.submit("a")
    assert play.run_passes() == set()
    assert play.message(key).startswith("waiting for disk space: ")
    play.start_service(free_disk=1)
    assert play.run_passes() == {"a"}


def test_the_number_of_waiting_jobs_is_limited(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_table, "MAX_QUEUE", 3)
    for number in range(3):
        play.submit(f"{number}")
    with pytest.raises(ApiError, match="3 jobs are waiting already") as refused:
        play.submit("one too many")
    assert refused.value.status == 429
    with pytest.raises(ApiError, match="3 jobs are waiting already"):
        play.jobs.check_queue(JobKey("tenant", "one too many"))
    play.jobs.check_queue(play.submit("2"))


def test_a_job_that_is_too_big_runs_alone(play: Play) -> None:
    huge = play.submit("huge", cpus=99)
    play.submit("small")
    assert play.run_passes() == {"huge"}
    play.finish(huge)
    assert play.run_passes() == {"small"}


def test_a_job_that_cannot_be_started_fails_and_does_not_hold_up_others(play: Play) -> None:
    unlucky = play.submit("unlucky", cpus=4)
    play.submit("next", cpus=4)
    assert play.run_passes() == {"next"}
    status = play.jobs.status(unlucky)
    assert status.state is JobState.FAILED
    assert "No space left on device" in status.message


def test_a_job_whose_claim_has_an_unknown_outcome_starts_nevertheless(play: Play) -> None:
    key = play.submit("a")
    lost = OperationalError("COMMIT", None, Exception("the connection is lost"))

    def lose_the_reply(_session: Session) -> None:
        event.remove(play.sessions, "after_commit", lose_the_reply)
        raise lost

    event.listen(play.sessions, "after_commit", lose_the_reply)
    with pytest.raises(OperationalError):
        play.run_passes()
    assert play.jobs.status(key).message == "starting", "the database has it"
    assert play.run_passes() == {"a"}


def test_a_running_job_is_canceled_by_its_runner(play: Play) -> None:
    key = play.submit("a")
    play.run_passes()
    play.jobs.cancel(key)
    play.run_passes()
    assert key in play.runner.canceled
    assert play.jobs.status(key).state is JobState.RUNNING
