"""What many tests need: a real training service of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest

from airflow_training.client.settings import ClientSettings
from airflow_training.local.service import Credentials, LocalService

# Airflow makes itself a home as soon as it is imported; that of the user is none of the tests' business.
_airflow_home = TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _airflow_home.name


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """A running service, one for each process of the test run."""
    service = LocalService(tmp_path_factory.mktemp("service"))
    with service.running():
        yield service


@pytest.fixture(scope="session")
def credentials(service: LocalService) -> Credentials:
    """An OAuth2 client of the service."""
    return service.add_client("tests")


@pytest.fixture(scope="session")
def settings(service: LocalService, credentials: Credentials) -> ClientSettings:
    """How a client reaches the service."""
    return ClientSettings(service.url, credentials.client_id, credentials.client_secret)


@pytest.fixture
def training_connection(monkeypatch: pytest.MonkeyPatch, settings: ClientSettings) -> str:
    """A connection of Airflow to the service; its name."""
    url = urlsplit(settings.base_url)
    login = {"login": settings.client_id, "password": settings.client_secret}
    connection = {"conn_type": "training", "schema": url.scheme, "host": url.hostname, "port": url.port, **login}
    monkeypatch.setenv("AIRFLOW_CONN_TRAINING_TEST", json.dumps(connection))
    return "training_test"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the triggerer does."""
    return "asyncio"
