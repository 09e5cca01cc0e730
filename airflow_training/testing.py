"""Tests of your own Dags: a pytest plugin with a training service and an Airflow database.

pytest loads it wherever this package is installed, also in projects that train nothing. So it imports Airflow and the
service only when a test uses a fixture.

Example: a test of the Dag in `dags/nightly.py`.

    from nightly import dag

    def test_the_nightly_dag_trains(training_service):
        assert dag.test().state == "success"
        assert (training_service.job_folder("nightly") / "sales.csv").is_file()
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_training.api.status import JobStatus
    from airflow_training.client.settings import ClientSettings


class TrainingService:
    """A training service that runs for the tests.

    Attributes:
        settings: Its URL, with the credentials of a client.

    Example: a Dag with a connection of another name.

        monkeypatch.setenv("AIRFLOW_CONN_MY_TRAININGS", training_service.connection)
    """

    def __init__(self, settings: ClientSettings, files: Path) -> None:
        self.settings = settings
        self._files = files

    @property
    def connection(self) -> str:
        """The connection to it, as JSON for an environment variable `AIRFLOW_CONN_…`."""
        login = {"login": self.settings.client_id, "password": self.settings.client_secret}
        return json.dumps({"conn_type": "training", "host": self.settings.base_url, **login})

    def jobs(self) -> list[JobStatus]:
        """All jobs submitted so far, by earlier tests too, in the order of their submits."""
        from airflow_training.client.client import TrainingClient
        from airflow_training.client.run_sync import run

        async def request() -> list[JobStatus]:
            async with TrainingClient(self.settings) as client:
                return await client.jobs()

        return sorted(run(request()), key=lambda job: str(job.to_wire()["submissionTime"]))

    def job_folder(self, name: str) -> Path:
        """The folder of the last job of this name, with its uploaded files and its output.

        Raises:
            LookupError: There is no such job.
        """
        from airflow_training.api.naming import job_folder

        jobs = {job.name: job.job_id for job in self.jobs()}
        if name not in jobs:
            from airflow_training.exceptions import coded

            raise LookupError(
                coded(
                    f"No job has the name {name!r}; existing names: {', '.join(jobs) or 'none'}.",
                    code="AT-901",
                )
            )
        return self._files / job_folder(name, jobs[name])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting."""
    parser.addini("training_dags", "Folder of the tested Dags, or the file of one; by default dags.")


@pytest.fixture(scope="session")
def _training_folder() -> Iterator[Path]:
    from airflow_training.local.guard import guarded_folder

    # pytest keeps its own folder for three runs, and a model may be large.
    with guarded_folder("airflow-training-") as folder:
        yield folder


@pytest.fixture(scope="session")
def _running_service(_training_folder: Path) -> Iterator[TrainingService]:
    from airflow_training.client.settings import ClientSettings
    from airflow_training.local.process import LocalProcessError
    from airflow_training.local.service import LocalService

    service = LocalService(_training_folder / "service")
    try:
        # First: if the service is not installed, this fails with the message that says so.
        client = service.add_client("tests")
        with service.running():
            settings = ClientSettings(service.url, client.client_id, client.client_secret)
            yield TrainingService(settings, service.data / "tenants/default/data")
    except LocalProcessError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def training_database(pytestconfig: pytest.Config, _training_folder: Path) -> Iterator[None]:
    """An Airflow database with the tested Dags only; override this fixture if you have a test database.

    When a test imports its Dag, Airflow opens the database of its home, which may be a real one. This fixture replaces
    it for the duration of the test.
    """
    dags = pytestconfig.rootpath / (
        pytestconfig.getini("training_dags") or os.environ.get("AIRFLOW__CORE__DAGS_FOLDER", "dags")
    )
    if not dags.exists():
        from airflow_training.exceptions import coded

        missing = coded(
            f"There is no {dags}: set training_dags in pytest's settings to the folder of the Dags.", code="AT-902"
        )
        pytest.fail(missing, pytrace=False)
    bundle = {"classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"path": str(dags)}}
    database = _training_folder / "airflow.db"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{database}?timeout=60")
        environment.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", f"sqlite+aiosqlite:///{database}?timeout=60")
        environment.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([{"name": "dags", **bundle}]))
        environment.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        _open_database(create=not database.exists())
        yield
    _open_database()


def _open_database(*, create: bool = False) -> None:
    """Make Airflow open the database of its current settings."""
    from airflow import settings
    from airflow.utils.db import initdb

    settings.configure_vars()
    settings.reconfigure_orm()
    if create:
        initdb()


@pytest.fixture
def training_service(
    _running_service: TrainingService, training_database: None, monkeypatch: pytest.MonkeyPatch
) -> TrainingService:
    """A training service; the connection `training_default` points to it during the test."""
    monkeypatch.setenv("AIRFLOW_CONN_TRAINING_DEFAULT", _running_service.connection)
    return _running_service
