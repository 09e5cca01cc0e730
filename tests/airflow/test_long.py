"""Trainings that take minutes: the first test that needs one starts them all, in parallel."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import pytest

from airflow_training.client.retry import REQUEST
from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.service import LocalService
from tests.airflow.proxy import NO_WATCH, Fault, Proxy, answers, lost, passed, reset, stalled, truncated
from tests.airflow.support import WAIT, ServiceUnderTest, Training

pytestmark = pytest.mark.slow

WHERE = ("deferred", "in_worker")
both = pytest.mark.parametrize("where", WHERE)

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
NOT_THERE = answers(404, "default backend - 404", "text/plain")
MAINTENANCE = answers(200, "<html>Maintenance</html>", "text/html")
STALL = stalled(30)
EVERY_FAULT = [TOO_MANY, *[answers(500)] * 3, *[OVERLOADED] * 3, reset, reset, NOT_THERE, MAINTENANCE, truncated]

# A single request has half a minute to succeed; following a job has a quarter of an hour. The status of a job is first
# requested before its submit.
FAULTS: dict[tuple[str, str], list[Fault]] = {
    ("POST", "/oauth/token"): [TOO_MANY, answers(500), reset, OVERLOADED],
    ("GET", "/storage"): [TOO_MANY, OVERLOADED, MAINTENANCE, truncated, reset],
    ("POST", "/jobs/"): [TOO_MANY, truncated, answers(500), lost, MAINTENANCE],
}
WATCHED: dict[tuple[str, str], list[Fault]] = {("POST", "/watch"): [passed, *EVERY_FAULT, STALL]}
POLLED: dict[tuple[str, str], list[Fault]] = {
    ("GET", "/jobs/[^/]+$"): [passed, *EVERY_FAULT, STALL],
    ("GET", "/logs$"): EVERY_FAULT,
}
# The worker's service does not know the watch extension.
ALL_FAULTS = {"deferred": FAULTS | WATCHED, "in_worker": FAULTS | POLLED}


@dataclass
class LongTrainings:
    """All long trainings; `hundred` is the id of a run."""

    short_tokens: dict[str, Training]
    outage: dict[str, Training]
    faults: dict[str, Training]
    proxies: dict[str, Proxy]
    hundred: str


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

    airflow.wait_for_dag("hundred")
    with ExitStack() as cleanup:
        short = service("short_tokens", "--token-lifetime", "5")
        away = service("outage")
        proxies = {where: cleanup.enter_context(Proxy(under_test.local.url).running()) for where in WHERE}
        trainings = LongTrainings({}, {}, {}, proxies, "")
        for where in WHERE:
            airflow.connect(f"training_faults_{where}", proxies[where].url, under_test.credentials)
            befall(proxies[where], ALL_FAULTS[where])
            dag = f"once_{where}"
            trainings.faults[where] = Training(airflow, under_test, dag, f"training_faults_{where}", script=SIXTY_LINES)
            trainings.short_tokens[where] = Training(airflow, short, dag, "training_short_tokens", script=SIXTY_LINES)
            trainings.outage[where] = Training(airflow, away, dag, "training_outage", script=WAIT)
        trainings.hundred = airflow.trigger("hundred")
        for training in trainings.outage.values():
            training.wait_for_line("waiting 3")
        away.local.stop()
        again = threading.Timer(OUTAGE, away.local.start)
        again.start()
        cleanup.callback(again.join)
        yield trainings


def befall(proxy: Proxy, all_faults: dict[tuple[str, str], list[Fault]]) -> None:
    if ("POST", "/watch") not in all_faults:
        proxy.inject("POST", "/watch", NO_WATCH, times=999)
    for (method, path), faults in all_faults.items():
        for fault in faults:
            proxy.inject(method, path, fault)


@both
def test_tokens_that_expire_are_not_noticed(long: LongTrainings, where: str) -> None:
    training = long.short_tokens[where]

    training.end()

    assert training.waited() == list(range(1, 61))
    assert training.errors() == []


@both
def test_a_service_that_is_unavailable_for_a_minute_ends_no_training(long: LongTrainings, where: str) -> None:
    training = long.outage[where]
    before = max(training.waited())

    training.wait_for_line(f"waiting {before + 100}")
    training.go_on()

    training.end()
    numbers = training.waited()
    assert numbers == list(range(1, len(numbers) + 1))
    assert training.errors() == []


@both
def test_faults_on_the_wire_are_survived_and_the_waits_are_within_the_policy(long: LongTrainings, where: str) -> None:
    training, proxy = long.faults[where], long.proxies[where]

    training.end()

    assert len(training.jobs) == 1
    assert training.waited() == list(range(1, 61))
    assert training.errors() == []
    for (method, path), faults in ALL_FAULTS[where].items():
        times = proxy.times(method, path)
        assert len(times) >= len(faults), f"every fault befell {path}"
        gaps = [after - before for before, after in pairwise(times)]
        waits = [gap for gap, fault in zip(gaps, faults, strict=False) if fault not in (passed, STALL)]
        assert waits[0] >= 2, "Retry-After is obeyed"
        assert max(waits) <= REQUEST.longest + 1


def test_a_hundred_mapped_tasks_train_a_hundred_models(
    long: LongTrainings, airflow: LocalAirflow, service: LocalService
) -> None:
    assert airflow.wait_for_run("hundred", long.hundred) == "success"

    folders = [list(service.data.glob(f"tenants/*/data/jobs/of-a-hundred-{number}-*")) for number in range(100)]
    assert [len(found) for found in folders] == [1] * 100, "one job for each task"
    assert all((folder / "model/1/saved_model.pb").is_file() for (folder,) in folders)
