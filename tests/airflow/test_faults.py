"""A service that is away, overloaded, forgetful or misunderstood: the training survives, or says what is wrong.

What takes its time is started by the first test that asks for it, all of it side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_training.client.retry import RetryPolicy
from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.service import LocalService
from tests.airflow.proxy import Fault, Proxy, answers, edited, lost, passed, reset, stalled, truncated
from tests.airflow.support import BOTH, WAIT, ServiceUnderTest, Training

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.timeout(600)]

both = pytest.mark.parametrize("where", BOTH)
Train = Callable[..., Training]

OUTAGE = 60
SIXTY_LINES = """
import time
from pathlib import Path
for number in range(1, 61):
    print("waiting", number, flush=True)
    time.sleep(1)
Path("model").mkdir()
Path("model/saved_model.pb").touch()
"""
TOO_MANY = answers(429, Retry_After="2")
OVERLOADED = answers(503, "<html>Overloaded</html>", "text/html")
MAINTENANCE = answers(200, "<html>Maintenance</html>", "text/html")
STALL = stalled(30)
EVERY_FAULT = [TOO_MANY, *[answers(500)] * 3, *[OVERLOADED] * 3, reset, reset, MAINTENANCE, truncated]

# What is asked once has half a minute to go well; a job that runs has a quarter of an hour. The status of a job is
# asked for a first time before it is submitted.
FAULTS: dict[tuple[str, str], list[Fault]] = {
    ("POST", "/oauth/token"): [TOO_MANY, answers(500), reset, OVERLOADED],
    ("GET", "/storage"): [TOO_MANY, OVERLOADED, MAINTENANCE, truncated, reset],
    ("POST", "/jobs/"): [TOO_MANY, truncated, answers(500), lost, MAINTENANCE],
    ("GET", "/jobs/[^/]+$"): [passed, *EVERY_FAULT, STALL],
    ("GET", "/logs$"): EVERY_FAULT,
}


@dataclass
class LongTrainings:
    """Trainings that take a minute or more."""

    short_tokens: dict[str, Training]
    outage: dict[str, Training]
    faults: dict[str, Training]
    proxies: dict[str, Proxy]


@pytest.fixture(scope="module")
def long(
    airflow: LocalAirflow, under_test: ServiceUnderTest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LongTrainings]:
    def service(name: str, *options: str) -> ServiceUnderTest:
        local = LocalService(tmp_path_factory.mktemp(name), options=options)
        cleanup.enter_context(local.running())
        service = ServiceUnderTest(local, local.add_client("tests"))
        airflow.connect(f"training_{name}", local.url, service.credentials)
        return service

    with ExitStack() as cleanup:
        short = service("short_tokens", "--token-lifetime", "5")
        away = service("outage")
        proxies = {where: cleanup.enter_context(Proxy(under_test.local.url).running()) for where in BOTH}
        trainings = LongTrainings({}, {}, {}, proxies)
        for where in BOTH:
            airflow.connect(f"training_faults_{where}", proxies[where].url, under_test.credentials)
            befall(proxies[where])
            dag = f"once_{where}"
            trainings.faults[where] = Training(airflow, under_test, dag, f"training_faults_{where}", script=SIXTY_LINES)
            trainings.short_tokens[where] = Training(airflow, short, dag, "training_short_tokens", script=SIXTY_LINES)
            trainings.outage[where] = Training(airflow, away, dag, "training_outage", script=WAIT)
        for training in trainings.outage.values():
            training.wait_for_line("waiting 3")
        away.local.stop()
        again = threading.Timer(OUTAGE, away.local.start)
        again.start()
        cleanup.callback(again.join)
        yield trainings


def befall(proxy: Proxy) -> None:
    for (method, path), faults in FAULTS.items():
        for fault in faults:
            proxy.inject(method, path, fault)


@both
def test_a_job_that_is_gone_fails_the_task_with_a_sentence_that_says_so(train: Train, proxy: Proxy, where: str) -> None:
    training = train(f"once_{where}", "training_proxy", script=WAIT)
    training.wait_for_line("waiting 3")
    asked = proxy.count("GET", "/jobs/[^/]+$")

    proxy.inject("GET", "/jobs/[^/]+$", answers(404, '{"error": {"code": "404", "message": "No such job"}}'), times=999)

    training.end("failed")
    kind, text = training.failure()
    assert kind == "JobLost"
    assert f"does not know the job {training.jobs[0].job_id} any more: it may have been removed. Clear the task" in text
    assert proxy.count("GET", "/jobs/[^/]+$") >= asked + 2, "it is asked again before the job is called lost"


def test_a_wrong_secret_is_one_clear_error_and_no_storm(
    train: Train, airflow: LocalAirflow, under_test: ServiceUnderTest, proxy: Proxy
) -> None:
    proxy.inject("POST", "/oauth/token", answers(401, '{"error": "invalid_client"}'), times=999)

    training = train("retry_deferred", "training_proxy")

    training.end("failed")
    kind, text = training.failure()
    assert kind == "AirflowFailException", "no retry can heal it"
    assert text.endswith("Check login and password of the connection.")
    assert len(proxy.seen) <= 2
    assert [job.job_id for job in training.jobs] == []
    for place in places(airflow, training):
        assert under_test.credentials.client_secret not in place


def test_no_secret_is_shown_by_a_training_that_goes_well(
    train: Train, airflow: LocalAirflow, under_test: ServiceUnderTest, proxy: Proxy
) -> None:
    tokens: list[str] = []

    async def listen(_: Any, forward: Any) -> Any:
        answer = await forward()
        tokens.append(answer.body.decode().split('"access_token":"')[1].split('"')[0])
        return answer

    proxy.inject("POST", "/oauth/token", listen, times=99)
    training = train("once_deferred", "training_proxy")

    training.end()

    assert tokens
    for place in places(airflow, training):
        for secret in (under_test.credentials.client_secret, *tokens):
            assert secret not in place


def places(airflow: LocalAirflow, training: Training) -> Iterator[str]:
    """Every place that a user of Airflow can look into: log, triggerer's log, XComs, rendered template fields."""
    yield str(training.log())
    yield airflow.components["triggerer"].output.read_text(errors="replace")
    task = f"/dags/{training.dag_id}/dagRuns/{training.run}/taskInstances/train"
    for entry in airflow.api("GET", f"{task}/xcomEntries")["xcom_entries"]:
        yield str(airflow.api("GET", f"{task}/xcomEntries/{entry['key']}"))
    yield str(training.task["rendered_fields"])
    yield str(training.task["trigger"])


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """Data files of several parts each."""
    files = {}
    for number in range(4):
        files[f"part-{number}.bin"] = str(tmp_path / f"part-{number}.bin")
        (tmp_path / f"part-{number}.bin").write_bytes(bytes([number]) * 12 * 1024 * 1024)
    return files


def test_a_retry_does_not_send_again_what_has_arrived(train: Train, proxy: Proxy, data: dict[str, str]) -> None:
    # Seven requests get through, then the storage breaks every connection until the task has given up.
    proxy.inject("(PUT|POST)", "/data/", lost, times=9999, skip=9)
    training = train("retry_deferred", "training_proxy", data=data)
    training.wait(lambda: training.task["try_number"] == 2 or training.state == "up_for_retry", "The first failure")
    proxy.heal()

    training.end()

    arrived = [line.split()[1] for line in training.lines(1) if line.startswith("Uploaded ")]
    unchanged = [line for line in training.lines(2) if line.startswith("Unchanged on the storage: ")]
    assert arrived
    assert {line.split()[4] for line in unchanged} >= set(arrived)
    assert training.failure(1)[0] == "StorageError"
    assert len(training.jobs) == 1


def test_a_storage_that_is_pending_is_waited_for(train: Train, proxy: Proxy) -> None:
    pending = edited(status="Pending", message="is being made", endpoint="", accessKey="", secretKey="")
    proxy.inject("GET", "/storage", pending, times=20)

    training = train("once_deferred", "training_proxy")

    training.end()
    assert proxy.count("GET", "/storage") >= 20


def test_a_storage_that_failed_is_told_in_the_services_words(train: Train, proxy: Proxy) -> None:
    proxy.inject("(GET|POST)", "/storage", edited(status="Error", message="quota exceeded"), times=999)

    training = train("once_deferred", "training_proxy")

    training.end("failed")
    kind, text = training.failure()
    assert kind == "StorageError"
    assert "is not ready, it is Error: quota exceeded. Ask whoever runs the service." in text


@both
def test_tokens_that_expire_are_not_noticed(long: LongTrainings, where: str) -> None:
    training = long.short_tokens[where]

    training.end()

    assert training.waited() == list(range(1, 61))
    assert training.errors() == []


@both
def test_a_service_that_is_away_for_a_minute_ends_no_training(long: LongTrainings, where: str) -> None:
    training = long.outage[where]
    before = max(training.waited())

    training.wait_for_line(f"waiting {before + 100}")
    training.go_on()

    training.end()
    numbers = training.waited()
    assert numbers == list(range(1, len(numbers) + 1))
    assert training.errors() == []


@both
def test_faults_on_the_wire_are_outlived_and_the_waits_are_within_the_policy(long: LongTrainings, where: str) -> None:
    training, proxy = long.faults[where], long.proxies[where]

    training.end()

    assert len(training.jobs) == 1
    assert training.waited() == list(range(1, 61))
    assert training.errors() == []
    for (method, path), faults in FAULTS.items():
        times = proxy.times(method, path)
        assert len(times) > len(faults), f"every fault befell {path}"
        gaps = [after - before for before, after in pairwise(times)]
        waits = [gap for gap, fault in zip(gaps, faults, strict=False) if fault not in (passed, STALL)]
        assert waits[0] >= 2, "Retry-After is obeyed"
        assert max(waits) <= RetryPolicy().longest + 1
