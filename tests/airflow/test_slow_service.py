"""The life of a job with a service that delays every reply by two seconds.

The delay applies to each request for a token, to the job API and to the storage. Each course of a job is run once, by
the tests of a fast service: a training that succeeds, a task that is marked and one that is cleared, a worker that
dies, a triggerer that is shut down, a limit that passes. How a task is marked, or how a triggerer ends, makes no
difference to the service. The limit is the `pending_timeout`: the service enforces the `completion_time` too, and is
first if its replies are late, and an `execution_timeout` of seconds would pass before the job starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from airflow_training.local.airflow import LocalAirflow
from tests.airflow import test_ending, test_triggerer
from tests.airflow.proxy import Proxy
from tests.airflow.support import BOTH, ServiceUnderTest, Training
from tests.airflow.test_ending import test_a_cleared_task_cancels_its_job_and_trains_again
from tests.airflow.test_retries import test_a_worker_that_dies_between_submit_and_deferral_loses_no_job
from tests.airflow.test_training import test_a_training_occupies_no_worker_and_returns_its_model

pytestmark = pytest.mark.slow

# They run here unchanged.
__all__ = [
    "test_a_cleared_task_cancels_its_job_and_trains_again",
    "test_a_training_occupies_no_worker_and_returns_its_model",
    "test_a_worker_that_dies_between_submit_and_deferral_loses_no_job",
]

Train = Callable[..., Training]


@pytest.fixture(autouse=True)
def _late(airflow: LocalAirflow, proxy: Proxy, under_test: ServiceUnderTest) -> Iterator[None]:
    """Point the connections of these tests to the slow service."""
    proxy.delay = 2.0
    airflow.api("DELETE", "/connections/training_default")
    airflow.connect("training_default", proxy.url, under_test.credentials)
    yield
    airflow.api("DELETE", "/connections/training_default")
    airflow.connect("training_default", under_test.local.url, under_test.credentials)


@pytest.mark.parametrize("where", BOTH)
def test_a_task_that_is_marked_failed_cancels_its_job(train: Train, where: str) -> None:
    test_ending.test_a_task_that_is_marked_cancels_its_job(train, where, "failed")


def test_the_pending_timeout_cancels_the_job_and_reports_the_services_reason(train: Train, proxy: Proxy) -> None:
    test_ending.test_the_pending_timeout_cancels_the_job_and_reports_the_services_reason(train, proxy, "deferred")


def test_a_triggerer_that_is_shut_down_affects_no_job_and_no_log(train: Train, airflow: LocalAirflow) -> None:
    test_triggerer.test_a_triggerer_that_ends_affects_no_job_and_no_log(train, airflow, test_triggerer.shut_down)
