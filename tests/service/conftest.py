"""Services on free ports, in folders of their own, and tenants of them; PostgreSQL for the tests that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines.podman import Podman, running_podman
from tests.engines.postgresql import PostgreSQL, running_server
from tests.engines.ray import RayCluster, running_ray
from tests.service.support import SQLITE, RunningService, Tenant

# What must not reach a job.
ENVIRONMENT = {
    "AIRFLOW__CORE__FERNET_KEY": "secret",
    "CLOUD_TOKEN": "secret",
    "PYTHONPATH": "/nowhere",
    "TZ": "UTC",
}


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """A container engine."""
    with running_podman() as podman:
        yield podman


@pytest.fixture(scope="session")
def ray() -> Iterator[RayCluster]:
    """A Ray cluster of one node."""
    with running_ray() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def service_with_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One service for the tests that need no other."""
    service = RunningService(tmp_path_factory.mktemp("service") / "with a space", ENVIRONMENT)
    with service.running():
        yield service


@pytest.fixture(scope="session")
def service_with_postgresql(
    postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """The same with the other database."""
    folder = tmp_path_factory.mktemp("service") / "with a space"
    with postgresql.database() as url, (service := RunningService(folder, ENVIRONMENT, database_url=url)).running():
        yield service


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """The database of a test: SQLite, or that of the mark `on`."""
    return getattr(request, "param", SQLITE)


@pytest.fixture
def service(database: str, request: pytest.FixtureRequest) -> RunningService:
    """One service for the tests that need no other."""
    service: RunningService = request.getfixturevalue(f"service_with_{database}")
    return service


@pytest.fixture
def database_url(database: str, request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A PostgreSQL database that nobody else uses; None for SQLite in the data folder."""
    if database == SQLITE:
        yield None
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    with server.database() as url:
        yield url


@pytest.fixture
def sessions_url(database_url: str | None, tmp_path: Path) -> str:
    """A database without any service."""
    return database_url or f"sqlite:///{tmp_path / 'service.db'}"


@pytest.fixture
def new_tenant(service: RunningService) -> Iterator[Callable[[], Tenant]]:
    """Makes tenants of the service."""
    tenants: list[Tenant] = []

    def make() -> Tenant:
        tenants.append(Tenant(service))
        return tenants[-1]

    yield make
    for tenant in tenants:
        tenant.leave()


@pytest.fixture
def tenant(new_tenant: Callable[[], Tenant]) -> Tenant:
    """A tenant that nobody else uses."""
    return new_tenant()


@pytest.fixture
def own_service(tmp_path: Path, database_url: str | None) -> Iterator[RunningService]:
    """A service that the test may stop and kill."""
    service = RunningService(tmp_path, database_url=database_url)
    with service.running():
        yield service


@pytest.fixture
def own_tenant(own_service: RunningService) -> Iterator[Tenant]:
    """A tenant of the service that the test may stop and kill."""
    tenant = Tenant(own_service)
    yield tenant
    tenant.leave()
