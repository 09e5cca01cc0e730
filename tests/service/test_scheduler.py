"""The order in which jobs start, with a runner that runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from airflow_training.jobs.description import JobDescription
from airflow_training.jobs.status import JobState
from airflow_training.service.database import open_database
from airflow_training.service.job_table import JobTable
from airflow_training.service.runners.runner import JobKey, Order, Progress
from airflow_training.service.scheduler import Scheduler


class Stage:
    """A runner whose jobs are where the test puts them."""

    def __init__(self) -> None:
        self.progress: dict[JobKey, Progress] = {}
        self.canceled: list[JobKey] = []

    def start(self, order: Order) -> None:
        if order.key.job_id == "unlucky":
            raise OSError(28, "No space left on device")
        self.progress[order.key] = Progress(JobState.RUNNING)

    def look(self, key: JobKey) -> Progress:
        return self.progress[key]

    def cancel(self, key: JobKey) -> None:
        self.canceled.append(key)

    def running(self) -> set[str]:
        return {key.job_id for key, progress in self.progress.items() if progress.state is JobState.RUNNING}


class Play:
    """A scheduler of four cpus whose passes the test makes."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.jobs = JobTable(sessions, cpus=4)
        self.runner = Stage()
        self.scheduler = Scheduler(self.jobs, self.runner, cpus=4)

    def submit(self, job_id: str, cpus: int = 1) -> JobKey:
        execution = {"command": "true", "completionTime": 1, "resources": {"cpus": cpus}}
        key = JobKey("tenant", job_id)
        self.jobs.submit(key, JobDescription.from_wire({"name": "a", "execution": execution}))
        return key

    def finish(self, key: JobKey) -> None:
        self.runner.progress[key] = Progress(JobState.SUCCEEDED)

    def go_on(self) -> set[str]:
        self.scheduler._pass()
        self.scheduler._pass()
        return self.runner.running()


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    sessions = open_database(f"sqlite:///{tmp_path / 'service.db'}")
    yield Play(sessions)
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


def test_a_running_job_is_cancelled_through_its_runner(play: Play) -> None:
    key = play.submit("a")
    play.go_on()
    play.jobs.cancel(key)
    play.go_on()
    assert key in play.runner.canceled
    assert play.jobs.status(key).state is JobState.RUNNING
