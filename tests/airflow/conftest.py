"""One Airflow and one training service, for all tests that need both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.process import free_port
from airflow_training.local.service import Credentials, LocalService

DAGS = Path(__file__).parent / "dags"


@pytest.fixture(scope="session")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, service: LocalService, credentials: Credentials
) -> Iterator[LocalAirflow]:
    """A running Airflow with connections to the service, good ones and bad ones."""
    airflow = LocalAirflow(tmp_path_factory.mktemp("airflow"), DAGS)
    try:
        airflow.migrate()
        airflow.start()
        airflow.connect("training_default", service.url, credentials)
        wrong = replace(credentials, client_secret="wr0ng-s3cr3t")
        airflow.connect("training_wrong_secret", service.url, wrong)
        airflow.connect("training_no_service", f"http://127.0.0.1:{free_port()}", credentials)
        yield airflow
    finally:
        airflow.stop()
