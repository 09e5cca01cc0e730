"""Starting jobs and seeing to them, with a runner that runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from airflow_training.api.description import JobDescription
from airflow_training.api.status import JobState
from airflow_training.service.database.models import now, open_database
from airflow_training.service.errors import ApiError
from airflow_training.service.http.prometheus import Metrics
from airflow_training.service.runners.runner import JobKey, Order, Progress
from airflow_training.service.scheduling import job_table
from airflow_training.service.scheduling.capacity import Machine
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.resources import Amount
from airflow_training.service.scheduling.scheduler import Scheduler
from airflow_training.service.settings import DataFolder
from tests.service.support import on_both

pytestmark = on_both

MACHINE = Amount(cpus=4, memory=1000, gpus=2)


class Stage:
    """A runner whose jobs are where the test puts them."""

    def __init__(self) -> None:
        self.progress: dict[JobKey, Progress] = {}
        self.canceled: list[JobKey] = []
        self.gpus: dict[str, tuple[str, ...]] = {}

    def objection(self, description: JobDescription) -> None:
        return None

    def start(self, order: Order) -> None:
        if order.key.job_id == "unlucky":
            raise OSError(28, "No space left on device")
        self.progress[order.key] = Progress(JobState.RUNNING)
        self.gpus[order.key.job_id] = order.gpus

    def look(self, key: JobKey) -> Progress:
        return self.progress[key]

    def cancel(self, key: JobKey) -> None:
        self.canceled.append(key)

    def running(self) -> set[str]:
        return {key.job_id for key, progress in self.progress.items() if progress.state is JobState.RUNNING}


class Play:
    """A scheduler of four cpus and two gpus whose passes the test makes."""

    def __init__(self, sessions: sessionmaker[Session], data: DataFolder) -> None:
        self.data = data
        self.sessions = sessions
        self.runner = Stage()
        self.start_service()

    def start_service(self, capacity: Amount = MACHINE, free_disk: int = 0) -> None:
        machine = Machine(capacity, [f"{index}" for index in range(capacity.gpus)])
        self.jobs = JobTable(self.sessions, machine)
        metrics = Metrics(self.jobs)
        self.scheduler = Scheduler(self.jobs, self.runner, machine, metrics, data=self.data, free_disk=free_disk)

    def submit(self, job_id: str, cpus: int = 1, memory: int = 1, gpus: int = 0) -> JobKey:
        description = JobDescription.from_wire({"name": "a", "execution": {"command": "true", "completionTime": 1}})
        key = JobKey("tenant", job_id)
        self.jobs.submit(key, description, Amount(cpus, memory, gpus))
        return key

    def why(self, key: JobKey) -> str:
        return self.jobs.status(key).message

    def finish(self, key: JobKey) -> None:
        self.runner.progress[key] = Progress(JobState.SUCCEEDED, finished=now())

    def go_on(self) -> set[str]:
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
    assert play.go_on() == {"a", "b"}
    play.finish(first)
    assert play.go_on() == {"b", "c"}


def test_a_big_job_is_not_overtaken_for_ever(play: Play) -> None:
    small = [play.submit(f"small-{number}") for number in range(2)]
    assert play.go_on() == {"small-0", "small-1"}
    play.submit("big", cpus=4)
    play.submit("late", cpus=1)
    assert play.go_on() == {"small-0", "small-1"}
    for key in small:
        play.finish(key)
    assert play.go_on() == {"big"}


def test_a_job_that_waits_for_a_gpu_holds_up_none_that_needs_none(play: Play) -> None:
    first = play.submit("first", gpus=2)
    play.go_on()
    second = play.submit("second", cpus=2, gpus=1)
    play.submit("big", cpus=2)
    small = play.submit("small")
    assert play.go_on() == {"first"}, "the three cpus that are left are kept for the two that came before"
    assert play.why(second) == "waiting for 1 of 2 gpus, 0 jobs ahead"
    assert play.why(small) == "waiting for its turn, 2 jobs ahead"
    play.jobs.cancel(JobKey("tenant", "big"))
    assert play.go_on() == {"first", "small"}
    play.finish(first)
    assert play.go_on() == {"second", "small"}


def test_each_gpu_is_one_jobs_alone_also_after_a_restart(play: Play) -> None:
    first, second = play.submit("first", gpus=1), play.submit("second", gpus=1)
    play.go_on()
    assert play.runner.gpus == {"first": ("0",), "second": ("1",)}
    play.finish(first)
    play.go_on()
    play.start_service()
    for order in play.jobs.claimed():
        play.scheduler._machine.take(order.key, order.granted, order.gpus)
        play.scheduler._begin(order)
    play.submit("third", gpus=1)
    play.go_on()
    assert play.runner.gpus["second"] == ("1",)
    assert play.runner.gpus["third"] == ("0",)
    play.finish(second)


def test_jobs_start_while_there_is_memory_for_them(play: Play) -> None:
    first = play.submit("first", memory=600)
    second = play.submit("second", memory=600)
    assert play.go_on() == {"first"}
    assert play.why(second) == "waiting for 600 of 1000 MB of memory, 0 jobs ahead"
    play.finish(first)
    assert play.go_on() == {"second"}


def test_a_job_for_a_larger_machine_waits_for_it_and_holds_up_nobody(play: Play) -> None:
    key = play.submit("gpu", gpus=2)
    play.start_service(MACHINE._replace(gpus=1))
    play.submit("small")
    assert play.go_on() == {"small"}
    assert play.why(key) == "asks for 2 gpus and this machine has 1: waiting for a service with more"


def test_no_job_starts_on_a_full_disk(play: Play) -> None:
    play.start_service(free_disk=10**9)
    key = play.submit("a")
    assert play.go_on() == set()
    assert play.why(key).startswith("waiting for disk space: ")
    play.start_service(free_disk=1)
    assert play.go_on() == {"a"}


def test_so_many_jobs_may_wait_and_no_more(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_table, "LONGEST_QUEUE", 3)
    for number in range(3):
        play.submit(f"{number}")
    with pytest.raises(ApiError, match="3 jobs are waiting already") as refused:
        play.submit("one too many")
    assert refused.value.status == 429
    play.submit("2")


def test_a_job_that_is_too_big_runs_alone(play: Play) -> None:
    huge = play.submit("huge", cpus=99)
    play.submit("small")
    assert play.go_on() == {"huge"}
    play.finish(huge)
    assert play.go_on() == {"small"}


def test_a_job_that_cannot_be_started_fails_and_holds_nobody_up(play: Play) -> None:
    unlucky = play.submit("unlucky", cpus=4)
    play.submit("next", cpus=4)
    assert play.go_on() == {"next"}
    status = play.jobs.status(unlucky)
    assert status.state is JobState.FAILED
    assert "No space left on device" in status.message


def test_a_job_of_which_nobody_knows_whether_it_was_claimed_starts_all_the_same(play: Play) -> None:
    key = play.submit("a")
    lost = OperationalError("COMMIT", None, Exception("the connection is lost"))

    def lose_the_reply(_session: Session) -> None:
        event.remove(play.sessions, "after_commit", lose_the_reply)
        raise lost

    event.listen(play.sessions, "after_commit", lose_the_reply)
    with pytest.raises(OperationalError):
        play.go_on()
    assert play.jobs.status(key).message == "starting", "the database has it"
    assert play.go_on() == {"a"}


def test_a_running_job_is_cancelled_through_its_runner(play: Play) -> None:
    key = play.submit("a")
    play.go_on()
    play.jobs.cancel(key)
    play.go_on()
    assert key in play.runner.canceled
    assert play.jobs.status(key).state is JobState.RUNNING
