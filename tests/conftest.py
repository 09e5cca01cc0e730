"""What many tests need: a real training service of their own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from airflow_training.client.settings import ClientSettings
from airflow_training.local.guard import guard
from airflow_training.local.process import end_processes_in
from airflow_training.local.service import Credentials, LocalService
from tests.patience import SLOWNESS

# Fixtures that start something beside this package and Airflow, and the parameters that have them started.
_ENGINES = {"postgresql", "podman", "container", "ray", "chromium"}

_IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ

if not _IS_WORKER:
    # Everything that a run makes is in one folder, and every process of it knows the folder by this variable: so
    # nothing is left, however the run ends. A short name, since the paths of sockets are limited to 107 bytes.
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="tests-")
    # PostgreSQL runs as another user.
    Path(tempfile.tempdir).chmod(0o711)
    guard(Path(tempfile.tempdir))

# Airflow makes itself a home as soon as it is imported; that of the user is none of the tests' business.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have the files of tests go with the run, and give a slow machine more time, unless options say otherwise."""
    if not _IS_WORKER and not config.option.basetemp:
        config.option.basetemp = Path(tempfile.gettempdir(), "pytest")
    if config.getoption("timeout", default=0) is None and "PYTEST_TIMEOUT" not in os.environ:
        config.option.timeout = float(config.getini("timeout")) * SLOWNESS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Two for each core, since tests wait half of their time, unless the variable of pytest-xdist says otherwise.

    Every second one has an Airflow of its own, which takes half a minute to start and one to two gigabytes: there is
    one for two gigabytes, and eight at most.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    gigabytes = psutil.virtual_memory().total // 2**30
    return max(1, min(2 * len(os.sched_getaffinity(0)), gigabytes // 2, 8))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what needs an engine to `make test-all`, and have tests that share something slow run on one worker."""
    # Airflows compete with the tests for the CPUs even when they wait, so only every second worker has one.
    airflows = max(1, getattr(config, "workerinput", {}).get("workercount", 1) // 2)
    needing_airflow: dict[str, int] = {}
    for item in items:
        if isinstance(item, pytest.Function):
            parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
            needs = {*item.fixturenames, *(value for value in parameters if isinstance(value, str))}
            if needs & _ENGINES:
                item.add_marker(pytest.mark.slow)
            if not item.get_closest_marker("xdist_group"):
                scopes = {overrides[-1].scope for overrides in item._fixtureinfo.name2fixturedefs.values()}
                # Tests that share a fixture of their module stay together.
                group = item.nodeid.split("::")[0] if "module" in scopes else item.nodeid
                if "package" in scopes:
                    group = f"airflow-{needing_airflow.setdefault(group, len(needing_airflow)) % airflows}"
                if scopes & {"module", "package"}:
                    item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_start)


def _start(item: pytest.Item) -> int:
    """What takes longest starts first; single tests fill the gaps."""
    group = item.get_closest_marker("xdist_group")
    return 2 if not group else 0 if group.args[0].startswith(("airflow-", "ray")) else 1


def pytest_keyboard_interrupt() -> None:
    """End everything at once: the workers would stop one service after another."""
    if not _IS_WORKER:
        end_processes_in(Path(tempfile.gettempdir()))


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
