"""A real Airflow and a real training service in a temporary folder, connected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.guard import guarded_folder
from airflow_training.local.service import LocalService
from tests.airflow.conftest import DAGS
from tests.airflow.support import ServiceUnderTest


@contextmanager
def airflow_and_service() -> Iterator[tuple[LocalAirflow, ServiceUnderTest]]:
    """Start both, with the Dags of the tests, and stop them."""
    with guarded_folder("benchmark-") as folder:
        service = LocalService(folder / "service")
        airflow = LocalAirflow(folder / "airflow", DAGS)
        with service.running():
            credentials = service.add_client("benchmark")
            try:
                airflow.migrate()
                airflow.start()
                airflow.connect("training_default", service.url, credentials)
                yield airflow, ServiceUnderTest(service, credentials)
            finally:
                airflow.stop()
