"""A retry continues with the job of the previous try, or starts a new one if it failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.airflow.proxy import Held, Proxy, lost
from tests.airflow.support import BOTH, SAVE, WAIT, Training

both = pytest.mark.parametrize("where", BOTH)
Train = Callable[..., Training]


@both
def test_a_worker_that_dies_between_submit_and_deferral_loses_no_job(train: Train, proxy: Proxy, where: str) -> None:
    submit = Held()
    proxy.inject("POST", "/jobs/", submit)
    training = train(f"retry_{where}", "training_proxy", script=WAIT)
    assert submit.reached.wait(60)

    psutil.Process(training.task["pid"]).kill()
    submit.released.set()
    training.wait(lambda: training.task["try_number"] == 2, "The second try")
    training.wait_for_line("waiting 3", try_number=2)
    training.go_on()

    training.end()
    assert len(training.jobs) == 1
    assert proxy.count("POST", "/jobs/") == 1, "the retry submitted nothing"
    numbers = training.waited(try_number=2)
    assert numbers == list(range(1, len(numbers) + 1)), "the log of the retry is whole"
    assert training.xcom().startswith("training://training_proxy@data/")


def test_a_worker_that_is_shut_down_leaves_its_job_to_the_retry(train: Train) -> None:
    training = train("retry_in_worker", script=WAIT)
    training.wait_for_line("waiting 3")

    psutil.Process(training.task["pid"]).terminate()
    training.wait(lambda: training.task["try_number"] == 2, "The second try")
    training.wait_for_line("waiting 3", try_number=2)
    training.go_on()

    training.end()
    assert [job.state.value for job in training.jobs] == ["SUCCEEDED"]
    assert training.failure(1)[0] == "TaskInterrupted"


@both
def test_a_lost_reply_to_the_submit_makes_no_second_job(train: Train, proxy: Proxy, where: str) -> None:
    proxy.inject("POST", "/jobs/", lost, times=2)

    training = train(f"once_{where}", "training_proxy")

    training.end()
    assert proxy.count("POST", "/jobs/") == 3
    assert len(training.jobs) == 1


@pytest.mark.slow
def test_a_submit_without_a_response_says_that_its_job_may_run(train: Train, proxy: Proxy) -> None:
    proxy.inject("(POST|DELETE)", "/jobs/", lost, times=999)

    training = train("once_deferred", "training_proxy", script=WAIT)

    training.end("failed")
    kind, text = training.failure()
    assert kind == "FollowingFailed"
    assert "and it could not be canceled and may still run: The training service did not answer DELETE" in text


@both
def test_a_retry_after_a_failure_is_a_new_job_and_both_logs_can_be_read(train: Train, where: str) -> None:
    training = train(f"retry_{where}", script="import sys\nprint('the last line')\nsys.exit(3)\n")

    training.end("failed")

    first, second = training.jobs
    assert first.job_id != second.job_id
    for number, job in enumerate((first, second), start=1):
        assert "the last line" in training.lines(number)
        kind, text = training.failure(number)
        assert kind == "JobFailed"
        assert job.job_id in text


@pytest.mark.slow
@both
def test_a_retry_takes_the_result_of_a_job_that_succeeded_meanwhile(train: Train, proxy: Proxy, where: str) -> None:
    submit = Held()
    proxy.inject("POST", "/jobs/", submit)
    training = train(f"retry_{where}", "training_proxy")
    assert submit.reached.wait(60)
    training.wait_for_job(1, "SUCCEEDED")

    psutil.Process(training.task["pid"]).kill()
    submit.released.set()

    training.end()
    assert len(training.jobs) == 1
    assert "[service] Running: python3 train.py" in training.lines(try_number=2)


def test_a_job_that_left_no_model_is_not_repeated(train: Train) -> None:
    training = train("retry_deferred", script="# A script.\nprint('no model')\n")

    training.end("failed")

    assert len(training.jobs) == 1
    assert training.failure()[0] == "AirflowFailException"


@pytest.mark.slow
def test_without_durable_a_retry_cancels_the_job_and_starts_a_new_one(train: Train, proxy: Proxy) -> None:
    submit = Held()
    proxy.inject("POST", "/jobs/", submit)
    training = train("not_durable_deferred", "training_proxy", script=WAIT)
    assert submit.reached.wait(60)

    psutil.Process(training.task["pid"]).kill()
    submit.released.set()
    training.wait_for_job(2)
    training.go_on(2)

    training.end()
    assert [job.state.value for job in training.jobs] == ["CANCELED", "SUCCEEDED"]


@pytest.mark.slow
def test_a_run_that_was_deleted_and_created_again_trains_again(train: Train) -> None:
    training = train("once_deferred")
    training.end()

    training.delete_and_run_again()

    training.end()
    first, second = training.jobs
    assert first.job_id != second.job_id
    assert training.xcom().endswith(f"-{second.job_id}/model/1")


@pytest.mark.slow
def test_a_model_that_a_training_starts_from_is_not_its_result(train: Train, tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/saved_model.pb").write_bytes(b"to begin with")

    training = train("once_deferred", data={"base": str(tmp_path)})

    training.end()
    assert training.xcom().endswith(f"-{training.jobs[0].job_id}/model/1")


@pytest.mark.slow
@both
@pytest.mark.parametrize(
    ("saves", "found"),
    [
        (("model/9", "model/10", "model/not-a-version"), "model/10"),
        (("out/run-7/export/saved",), "out/run-7/export/saved"),
    ],
    ids=["the newest of two versions", "nested deeper"],
)
def test_the_saved_model_is_found(train: Train, where: str, saves: tuple[str, ...], found: str) -> None:
    folders = "".join(SAVE.replace("model/1", folder) for folder in saves)

    training = train(f"once_{where}", script=folders)

    training.end()
    assert training.xcom().endswith(f"-{training.jobs[0].job_id}/{found}")
