"""An Airflow and a training service for each process that runs tests of this package.

The Airflow ends with the last test of this package: when idle, it takes a tenth of a core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.process import LocalProcess, LocalProcessError, free_port
from airflow_training.local.service import Credentials, LocalService
from tests.airflow.proxy import Proxy
from tests.airflow.support import READ_DAGS_ONCE, Counts, ServiceUnderTest, Training
from tests.patience import PATIENCE

HERE = Path(__file__).parent
DAGS = HERE / "dags"
USERS = {"admin": "admin", "viewer": "viewer", "user": "user", "op": "op", "stranger": "op"}
"""The users and their roles. `op` may read connections; so may `stranger`, who may read one Dag only."""


@pytest.fixture(scope="package")
def counts() -> Iterator[Counts]:
    """What the Airflow sends to StatsD."""
    counts = Counts()
    yield counts
    counts.close()


@pytest.fixture(scope="package")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, service: LocalService, credentials: Credentials, counts: Counts
) -> Iterator[LocalAirflow]:
    """A running Airflow with connections to the service, valid and invalid ones."""
    # Tests mostly wait, so they share this Airflow: more tasks run in parallel than there are cores.
    settings = {
        "AIRFLOW__CORE__PARALLELISM": "12",
        **READ_DAGS_ONCE,
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(counts.port),
        "AIRFLOW__CORE__AUTH_MANAGER": "tests.airflow.auth.AuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "PYTHONPATH": str(DAGS.parents[2]),
    }
    airflow = LocalAirflow(tmp_path_factory.mktemp("airflow"), DAGS, settings)
    airflow.patience = PATIENCE
    try:
        airflow.migrate()
        airflow.start()
        airflow.connect("training_default", service.url, credentials)
        wrong = replace(credentials, client_secret="wr0ng-s3cr3t")
        airflow.connect("training_wrong_secret", service.url, wrong)
        airflow.connect("training_no_service", f"http://127.0.0.1:{free_port()}", credentials)
        with kept_running(airflow.components["scheduler"]):
            yield airflow
    finally:
        airflow.stop()


@contextmanager
def kept_running(process: LocalProcess) -> Iterator[None]:
    """Restart Airflow's scheduler if it exits, as a production supervisor does; no test stops it.

    It exits (3.3) with a StaleDataError if a Dag or a run is deleted while the scheduler processes it.
    """
    over = threading.Event()

    def keep() -> None:
        while not over.wait(1):
            try:
                process.check()
            except LocalProcessError:  # noqa: PERF203 - it has a second
                if "StaleDataError" not in process.tail(400):
                    raise
                process.start()

    keeper = threading.Thread(target=keep, name="keeper", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


@pytest.fixture(scope="package")
def under_test(service: LocalService, credentials: Credentials) -> ServiceUnderTest:
    """The service of the connection `training_default`."""
    return ServiceUnderTest(service, credentials)


@pytest.fixture
def train(airflow: LocalAirflow, under_test: ServiceUnderTest) -> Iterator[Callable[..., Training]]:
    """Starts a training: `train("retry_deferred", script=…)`."""
    trainings = []

    def train(*args: Any, **kwargs: Any) -> Training:
        trainings.append(Training(airflow, under_test, *args, **kwargs))
        return trainings[-1]

    yield train
    for training in trainings:
        training.leave()


@pytest.fixture
def proxy(airflow: LocalAirflow, under_test: ServiceUnderTest) -> Iterator[Proxy]:
    """A proxy in front of the service, with the connection `training_proxy`."""
    with Proxy(under_test.local.url).running() as proxy:
        airflow.connect("training_proxy", proxy.url, under_test.credentials)
        yield proxy
        airflow.api("DELETE", "/connections/training_proxy")
