"""A triggerer that dies, stops or loses a trigger: the job continues, and the log shows every line once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psutil
import pytest

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.process import LocalProcess
from tests.airflow.support import WAIT, Training, frozen_triggerer
from tests.patience import PATIENCE, wait_for

Train = Callable[..., Training]


def crash(process: LocalProcess) -> None:
    """Kill a process and its children, like the kernel when memory is short."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children)


def shut_down(process: LocalProcess) -> None:
    """Stop a process, like an upgrade."""
    process.stop(grace=60)


def check_the_log(training: Training) -> None:
    numbers = training.waited()
    assert numbers == list(range(1, len(numbers) + 1)), "every line once, and in order"
    assert training.lines().count("saved") == 1


@pytest.mark.parametrize("end", [crash, shut_down])
def test_a_triggerer_that_ends_affects_no_job_and_no_log(
    train: Train, airflow: LocalAirflow, end: Callable[[LocalProcess], None]
) -> None:
    triggerer = airflow.components["triggerer"]
    training = train("once_deferred", script=WAIT)
    training.wait_for_line("waiting 20")

    end(triggerer)
    triggerer.start()
    before = max(training.waited())
    training.wait_for_line(f"waiting {before + 10}")
    training.go_on()

    training.end()
    assert [job.state.value for job in training.jobs] == ["SUCCEEDED"]
    check_the_log(training)


@contextmanager
def second_triggerer(airflow: LocalAirflow) -> Iterator[LocalProcess]:
    process = airflow.component("triggerer", "triggerer-2")
    process.start()
    try:
        yield process
    finally:
        process.stop()


def triggerers(airflow: LocalAirflow) -> list[int]:
    query = "SELECT id FROM job WHERE job_type = 'TriggererJob' AND state = 'running' AND end_date IS NULL ORDER BY id"
    with closing(sqlite3.connect(airflow.database, timeout=PATIENCE)) as database:
        return [row[0] for row in database.execute(query)]


def change_trigger(airflow: LocalAirflow, training: Training, change: str, value: object) -> None:
    """Change a trigger behind Airflow's back, by `UPDATE trigger SET … = ? WHERE id = ?`."""
    with closing(sqlite3.connect(airflow.database, timeout=PATIENCE)) as database:
        changed = database.execute(change, (value, training.task["trigger"]["id"])).rowcount
        database.commit()
    assert changed == 1


def test_a_trigger_that_is_moved_affects_no_job_and_no_log(train: Train, airflow: LocalAirflow) -> None:
    training = train("once_deferred", script=WAIT)
    training.wait_for_line("waiting 5")
    first = triggerers(airflow)[-1]
    with second_triggerer(airflow):
        wait_for(lambda: triggerers(airflow)[-1] != first, "The second triggerer")

        # As Airflow does if the first one seems to be dead.
        change_trigger(airflow, training, "UPDATE trigger SET triggerer_id = ? WHERE id = ?", triggerers(airflow)[-1])

        job = training.jobs[0]
        left_alone = f"The training job {job.job_id} is not canceled: its task continues (state: deferred)"
        training.wait_for_line(left_alone)
        before = max(training.waited())
        training.wait_for_line(f"waiting {before + 10}")
        training.go_on()
        training.end()

    assert [job.state.value for job in training.jobs] == ["SUCCEEDED"]
    check_the_log(training)


@pytest.mark.slow
def test_a_trigger_that_returns_to_a_triggerer_has_its_complete_log(train: Train, airflow: LocalAirflow) -> None:
    training = train("once_deferred", script=WAIT)
    training.wait_for_line("waiting 5")
    first = triggerers(airflow)[-1]
    with second_triggerer(airflow):
        wait_for(lambda: triggerers(airflow)[-1] != first, "The second triggerer")
        for triggerer in (triggerers(airflow)[-1], first):
            change_trigger(airflow, training, "UPDATE trigger SET triggerer_id = ? WHERE id = ?", triggerer)
            before = max(training.waited())
            training.wait_for_line(f"waiting {before + 20}")
        training.go_on()
        training.end()

    check_the_log(training)


@pytest.mark.slow
def test_the_job_of_a_trigger_that_died_is_continued_or_canceled(train: Train, airflow: LocalAirflow) -> None:
    triggerer = airflow.components["triggerer"]
    with frozen_triggerer(airflow):
        retry = train("retry_deferred", script=WAIT)
        once = train("once_deferred", script=WAIT)
        for training in (retry, once):
            training.wait_for_state("deferred")
            gone = "airflow_training.triggers.of_another_release.Trigger"
            change_trigger(airflow, training, "UPDATE trigger SET classpath = ? WHERE id = ?", gone)

    once.end("failed")
    retry.wait(lambda: retry.task["try_number"] == 2 and retry.state == "deferred", "The second try")
    # SQLite reuses a free id, and a triggerer never starts the id of a trigger that it could not load.
    shut_down(triggerer)
    triggerer.start()
    retry.wait_for_line("waiting 3", try_number=2)
    retry.go_on()
    retry.end()

    once.wait_for_job(1, "CANCELED")
    assert len(once.jobs) == 1
    assert once.failure()[1].endswith("was canceled; clear the task to train again. [AT-435]")
    assert [job.state.value for job in retry.jobs] == ["SUCCEEDED"]
    kind, text = retry.failure(1)
    assert kind == "FollowingFailed"
    assert text.endswith(f"The retry continues with the job {retry.jobs[0].job_id}. [AT-431]")
