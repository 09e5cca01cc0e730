"""The end of a task cancels its job, moving its trigger does not, and a job that takes too long is canceled."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest

from airflow_training.local.airflow import LocalAirflow
from tests.airflow.proxy import NO_WATCH, Proxy, answers, edited, late_for_those_who_wait, stalled
from tests.airflow.support import BOTH, WAIT, Training, frozen_triggerer
from tests.patience import PATIENCE

both = pytest.mark.parametrize("where", BOTH)
Train = Callable[..., Training]

# The second job of a task saves its model, the first one waits forever.
SECOND_TIME = """
import time
from pathlib import Path
before = Path("{before}")
if not before.exists():
    before.touch()
    print("the first time", flush=True)
    time.sleep(600)
Path("model").mkdir()
Path("model/saved_model.pb").touch()
"""


def test_a_cleared_task_cancels_its_job_and_trains_again(train: Train) -> None:
    training = train("once_deferred", script=WAIT)
    training.wait_for_line("waiting 3")

    training.clear()
    training.wait_for_job(2)
    training.wait_for_job(1, "CANCELED")
    training.go_on(2)

    training.end()
    assert [job.state.value for job in training.jobs] == ["CANCELED", "SUCCEEDED"]
    assert training.xcom().endswith(f"-{training.jobs[1].job_id}/model/1")


@pytest.mark.slow
def test_a_new_try_that_is_faster_than_the_old_trigger_keeps_its_job(train: Train, airflow: LocalAirflow) -> None:
    training = train("once_deferred", script=WAIT)
    training.wait_for_line("waiting 3")

    with frozen_triggerer(airflow):
        training.clear()
        training.wait_for_job(2)
        training.wait(lambda: training.task["try_number"] == 2 and training.state == "deferred", "The second deferral")
    training.wait_for_line("waiting 3", try_number=2)
    training.go_on(2)

    training.end()
    assert [job.state.value for job in training.jobs] == ["CANCELED", "SUCCEEDED"]


@pytest.mark.slow
def test_an_old_trigger_that_is_mistaken_for_the_new_one_ends_no_training(train: Train, airflow: LocalAirflow) -> None:
    training = train("once_deferred", script=WAIT)
    training.wait_for_line("waiting 3")
    old = training.task["trigger"]["id"]

    with frozen_triggerer(airflow):
        training.clear()
        training.wait(lambda: training.task["try_number"] == 2 and training.state == "deferred", "The second deferral")
        new = training.task["trigger"]["id"]
        # SQLite does this by itself: it reuses a free id for the next trigger.
        with closing(sqlite3.connect(airflow.database, timeout=PATIENCE)) as database:
            database.execute("DELETE FROM trigger WHERE id = ?", (old,))
            database.execute("UPDATE trigger SET id = ? WHERE id = ?", (old, new))
            database.execute("UPDATE task_instance SET trigger_id = ? WHERE trigger_id = ?", (old, new))
            database.commit()
    training.wait_for_line("waiting 3", try_number=2)
    training.go_on(2)

    training.end()
    assert [job.state.value for job in training.jobs] == ["CANCELED", "SUCCEEDED"]


@pytest.mark.slow
@both
@pytest.mark.parametrize("mark", ["failed", "success"])
def test_a_task_that_is_marked_cancels_its_job(train: Train, where: str, mark: str) -> None:
    training = train(f"once_{where}", script=WAIT)
    training.wait_for_line("waiting 3")

    training.mark(mark)

    training.wait(lambda: training.jobs[0].state.value == "CANCELED", "The cancellation")
    assert len(training.jobs) == 1
    assert training.state == mark


# Seconds: more than the one that Airflow (3.3) gives `on_kill`.
LATE = 5.0


def remove(training: Training) -> None:
    """Have the Dag file leave out the task, and Airflow read it again."""
    (training.airflow.home / "removed").touch()
    file = training.airflow.api("GET", f"/dags/{training.dag_id}")["file_token"]
    training.airflow.api("PUT", f"/parseDagFile/{file}")


ENDINGS: dict[str, tuple[str, Callable[[Training], object]]] = {
    "the task is marked failed": ("once", lambda training: training.mark("failed")),
    "the task is marked successful": ("once", lambda training: training.mark("success")),
    "its run is marked failed": ("once", lambda training: training.mark_run("failed")),
    "its run is marked successful": ("once", lambda training: training.mark_run("success")),
    "its Dag is deleted": ("deleted", lambda training: training.airflow.api("DELETE", f"/dags/{training.dag_id}")),
    "it is removed from its file": ("removed", remove),
    # Started last: its time runs from its start, and the others delay it on a busy machine.
    "the dagrun_timeout passes": ("run_timeout", lambda _: None),
}


def wait_until_followed(trainings: Iterable[Training]) -> None:
    for training in trainings:
        # Most of them wait for a CPU at the service.
        training.wait(
            lambda of=training: of.is_followed() or (of.jobs and of.jobs[0].state.ended),  # type: ignore[misc]
            f"Following {training.name}",
        )


def test_a_deferred_task_that_is_ended_cancels_its_job_however_slow_the_service(train: Train, proxy: Proxy) -> None:
    proxy.inject("DELETE", "/jobs/", late_for_those_who_wait(LATE), times=math.inf)
    trainings: dict[str, Training] = {}
    for way, (dag, _) in ENDINGS.items():
        if dag == "run_timeout":
            wait_until_followed(trainings.values())
        trainings[way] = train(f"{dag}_deferred", "training_proxy", script=WAIT)
    wait_until_followed(trainings.values())

    for way, (_, end) in ENDINGS.items():
        end(trainings[way])

    for way, training in trainings.items():
        training.wait(lambda job=training: job.jobs[0].state.value == "CANCELED", f"The end of the job when {way}")  # type: ignore[misc]
        assert len(training.jobs) == 1


def test_a_triggerer_that_is_stopped_completes_the_cancellation_of_a_job(
    train: Train, proxy: Proxy, airflow: LocalAirflow
) -> None:
    proxy.inject("DELETE", "/jobs/", late_for_those_who_wait(LATE), times=math.inf)
    training = train("once_deferred", "training_proxy", script=WAIT)
    training.wait_for_line("waiting 3")

    training.mark("failed")
    training.wait(lambda: proxy.count("DELETE", "/jobs/"), "The cancellation")
    triggerer = airflow.components["triggerer"]
    triggerer.stop(grace=60)
    triggerer.start()

    training.wait_for_job(1, "CANCELED")


def test_a_task_on_a_worker_that_is_ended_cancels_its_job_though_airflow_kills_it_first(
    train: Train, proxy: Proxy
) -> None:
    # Longer than the five seconds that Airflow gives a task to end.
    proxy.inject("DELETE", "/jobs/", late_for_those_who_wait(8), times=math.inf)
    training = train("once_in_worker", "training_proxy", script=WAIT)
    training.wait_for_line("waiting 3")

    training.mark("failed")

    training.wait_for_job(1, "CANCELED")
    assert any("keeps trying for 15 minutes" in line for line in training.lines())


@pytest.mark.slow
def test_a_running_task_that_is_cleared_cancels_its_job_and_trains_again(train: Train) -> None:
    training = train("once_in_worker", script=WAIT)
    training.wait_for_line("waiting 3")

    training.clear()
    training.wait_for_job(2)
    training.go_on(2)

    training.end()
    assert [job.state.value for job in training.jobs] == ["CANCELED", "SUCCEEDED"]


@pytest.mark.slow
def test_a_task_that_is_ended_during_the_upload_leaves_no_job(train: Train, proxy: Proxy) -> None:
    proxy.inject("PUT", "/data/", stalled(600), times=99)
    training = train("once_deferred", "training_proxy")
    training.wait(lambda: proxy.count("PUT", "/data/"), "The upload")

    training.mark("failed")

    training.wait(lambda: proxy.count("DELETE", "/jobs/"), "The cancellation")
    assert training.jobs == []


def test_a_task_that_is_ended_during_the_submit_leaves_no_running_job(train: Train, proxy: Proxy) -> None:
    proxy.inject("POST", "/jobs/", stalled(1), times=99)
    training = train("once_deferred", "training_proxy", script=WAIT)
    training.wait(lambda: proxy.count("POST", "/jobs/"), "The submit")

    training.mark("failed")

    training.wait_for_job(1, "CANCELED")


@pytest.mark.slow
def test_with_cancel_on_kill_false_the_job_continues(train: Train) -> None:
    training = train("not_canceled_deferred", script=WAIT)
    training.wait_for_line("waiting 3")

    training.mark("failed")
    training.wait_for_line(f"The training job {training.jobs[0].job_id} is not canceled, since cancel_on_kill=False")

    assert training.jobs[0].state.value == "RUNNING"
    training.go_on()
    training.wait_for_job(1, "SUCCEEDED")


@both
def test_the_execution_timeout_cancels_the_job_and_honors_the_retry(train: Train, where: str, tmp_path: Path) -> None:
    training = train(f"timeout_{where}", script=SECOND_TIME.format(before=tmp_path / "before"))

    training.end()

    assert [job.state.value for job in training.jobs] == ["CANCELED", "SUCCEEDED"]
    assert "the first time" in training.lines(1)
    kind, text = training.failure(1)
    assert kind == "JobTimedOut"
    assert "execution_timeout" in text
    assert training.jobs[0].job_id in text


@both
def test_the_completion_time_cancels_the_job(train: Train, where: str) -> None:
    training = train(f"once_{where}", script=WAIT, completion_time="4s")

    training.end("failed")

    assert [job.state.value for job in training.jobs] == ["CANCELED"]
    kind, text = training.failure()
    assert kind == "JobTimedOut"
    assert "has exceeded its completion_time of 0:00:04, and was canceled. Allow it more time" in text
    numbers = training.waited()
    assert numbers == list(range(1, len(numbers) + 1)), "the log is complete"


@both
def test_the_pending_timeout_cancels_the_job_and_reports_the_services_reason(
    train: Train, proxy: Proxy, where: str
) -> None:
    pending = edited(status="PENDING", startTime=None, message="waiting for 2 of 4 cpus, 3 jobs ahead")
    proxy.inject("POST", "/watch", NO_WATCH, times=999)
    proxy.inject("GET", "/jobs/[^/]+$", pending, times=999)
    proxy.inject("POST", "/jobs/", pending, times=999)
    training = train(f"pending_{where}", "training_proxy", script=WAIT)
    training.wait(lambda: proxy.count("DELETE", "/jobs/"), "The cancellation")
    proxy.heal()

    training.end("failed")

    assert [job.state.value for job in training.jobs] == ["CANCELED"]
    kind, text = training.failure()
    assert kind == "JobTimedOut"
    assert "within its pending_timeout of 0:00:05: waiting for 2 of 4 cpus, 3 jobs ahead, and was canceled" in text


@pytest.mark.slow
def test_a_job_that_cannot_be_canceled_in_time_is_reported_as_running(train: Train, proxy: Proxy) -> None:
    proxy.inject("DELETE", "/jobs/", answers(403, '{"error": {"code": "403", "message": "Not yours"}}'), times=999)
    training = train("once_deferred", "training_proxy", script=WAIT, completion_time="2s")

    training.end("failed")

    assert "could not be canceled and may still run: The training service refused DELETE" in training.failure()[1]
    training.go_on()
