"""A service that loses jobs, refuses or disconnects: the training survives, or reports the error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_training.local.airflow import LocalAirflow
from tests.airflow.proxy import Proxy, answers, edited, forgotten, lost
from tests.airflow.support import BOTH, WAIT, ServiceUnderTest, Training, places

both = pytest.mark.parametrize("where", BOTH)
Train = Callable[..., Training]


@both
def test_a_lost_job_fails_the_task_with_a_sentence_that_says_so(train: Train, proxy: Proxy, where: str) -> None:
    training = train(f"once_{where}", "training_proxy", script=WAIT)
    training.wait_for_line("waiting 3")
    asked = proxy.count("GET", "/jobs/[^/]+$")

    proxy.inject("POST", "/watch", forgotten, times=999)
    proxy.inject("GET", "/jobs/[^/]+$", answers(404, '{"error": {"code": "404", "message": "No such job"}}'), times=999)

    training.end("failed")
    kind, text = training.failure()
    assert kind == "JobLost"
    assert f"does not know the job {training.jobs[0].job_id} any more: it may have been removed. Clear the task" in text
    assert proxy.count("GET", "/jobs/[^/]+$") >= asked + 2, "it is asked again before the job is called lost"


REFUSED = answers(403, '{"error": {"code": "403", "message": "Not today"}}')


@both
def test_a_retry_continues_with_a_job_that_could_not_be_followed(train: Train, proxy: Proxy, where: str) -> None:
    training = train(f"retry_{where}", "training_proxy", script=WAIT)
    training.wait_for_line("waiting 3")

    proxy.inject("POST", "/watch", REFUSED)
    training.wait(lambda: training.task["try_number"] == 2, "The second try")
    training.wait_for_line("waiting 3", try_number=2)
    training.go_on()

    training.end()
    assert [job.state.value for job in training.jobs] == ["SUCCEEDED"]
    kind, text = training.failure(1)
    assert kind == "FollowingFailed"
    assert "Not today" in text
    assert text.endswith(f"The retry continues with the job {training.jobs[0].job_id}. [AT-431]")


@pytest.mark.slow
def test_without_a_retry_a_job_that_cannot_be_followed_is_canceled(train: Train, proxy: Proxy) -> None:
    training = train("once_deferred", "training_proxy", script=WAIT)
    training.wait_for_line("waiting 3")

    proxy.inject("POST", "/watch", REFUSED)

    training.end("failed")
    training.wait_for_job(1, "CANCELED")
    assert len(training.jobs) == 1
    assert training.failure()[1].endswith("so it was canceled; clear the task to train again. [AT-435]")


def test_a_wrong_secret_is_one_clear_error_without_a_request_storm(
    train: Train, airflow: LocalAirflow, under_test: ServiceUnderTest, proxy: Proxy
) -> None:
    proxy.inject("POST", "/oauth/token", answers(401, '{"error": "invalid_client"}'), times=999)

    training = train("retry_deferred", "training_proxy")

    training.end("failed")
    kind, text = training.failure()
    assert kind == "AirflowFailException", "no retry can heal it"
    assert text.endswith("Check login and password of the connection. [AT-141]")
    assert len(proxy.seen) <= 2
    assert [job.job_id for job in training.jobs] == []
    for place in places(airflow, training):
        assert under_test.credentials.client_secret not in place


def test_a_training_that_succeeds_shows_no_secret(
    train: Train, airflow: LocalAirflow, under_test: ServiceUnderTest, proxy: Proxy
) -> None:
    tokens: list[str] = []

    async def listen(_: Any, forward: Any) -> Any:
        answer = await forward()
        tokens.append(answer.body.decode().split('"access_token":"')[1].split('"')[0])
        return answer

    proxy.inject("POST", "/oauth/token", listen, times=99)
    training = train("once_deferred", "training_proxy", script=WAIT)
    training.wait_for_line("waiting 3")
    trigger = str(training.task["trigger"])
    training.go_on()

    training.end()

    assert tokens
    for place in (trigger, *places(airflow, training)):
        for secret in (under_test.credentials.client_secret, *tokens):
            assert secret not in place


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """Data files of several parts each."""
    files = {}
    for number in range(4):
        files[f"part-{number}.bin"] = str(tmp_path / f"part-{number}.bin")
        (tmp_path / f"part-{number}.bin").write_bytes(bytes([number]) * 12 * 1024 * 1024)
    return files


def test_a_retry_does_not_send_again_what_has_arrived(train: Train, proxy: Proxy, data: dict[str, str]) -> None:
    # Seven requests succeed, then the storage breaks every connection until the task gives up.
    proxy.inject("(PUT|POST)", "/data/", lost, times=9999, skip=9)
    training = train("retry_deferred", "training_proxy", data=data)
    training.wait(lambda: training.task["try_number"] == 2 or training.state == "up_for_retry", "The first failure")
    proxy.heal()

    training.end()

    arrived = [line.split()[1] for line in training.lines(1) if line.startswith("Uploaded ")]
    unchanged = [line for line in training.lines(2) if line.startswith("Unchanged in the storage: ")]
    assert arrived
    assert {line.split()[4] for line in unchanged} >= set(arrived)
    assert training.failure(1)[0] == "StorageError"
    assert len(training.jobs) == 1


@pytest.mark.slow
def test_an_upload_of_which_the_last_reply_was_lost_is_not_sent_again(
    train: Train, proxy: Proxy, data: dict[str, str]
) -> None:
    # The first POST starts a multipart upload, the second completes it; a third finds no such upload.
    proxy.inject("POST", "/data/.*part-0", lost, skip=1)

    training = train("retry_deferred", "training_proxy", data={"part-0.bin": data["part-0.bin"]})

    training.end()
    assert training.failure(1)[0] == "StorageError"
    assert any(line.startswith("Unchanged in the storage: part-0.bin") for line in training.lines(2))


def test_a_storage_that_is_pending_is_waited_for(train: Train, proxy: Proxy) -> None:
    pending = edited(status="Pending", message="is being made", endpoint="", accessKey="", secretKey="")
    proxy.inject("GET", "/storage", pending, times=20)

    training = train("once_deferred", "training_proxy")

    training.end()
    assert proxy.count("GET", "/storage") >= 20


@pytest.mark.slow
def test_a_storage_that_failed_is_reported_with_the_services_message(train: Train, proxy: Proxy) -> None:
    proxy.inject("(GET|POST)", "/storage", edited(status="Error", message="quota exceeded"), times=999)

    training = train("once_deferred", "training_proxy")

    training.end("failed")
    kind, text = training.failure()
    assert kind == "StorageError"
    assert "is not ready (status: Error): quota exceeded. Ask the administrator of the service." in text
