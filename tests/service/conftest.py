"""Services on free ports, in folders of their own, and tenants of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service.support import RunningService, Tenant


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One service for the tests that need no other; what must not reach a job stands in its environment."""
    running = RunningService(tmp_path_factory.mktemp("service") / "data folder")
    try:
        yield running.start(AIRFLOW__CORE__FERNET_KEY="secret", CLOUD_TOKEN="secret", PYTHONPATH="/nowhere", TZ="UTC")
    finally:
        running.end()


@pytest.fixture
def new_tenant(service: RunningService) -> Iterator[Callable[[], Tenant]]:
    """Makes tenants of the service."""
    tenants: list[Tenant] = []

    def make() -> Tenant:
        tenants.append(Tenant(service, service.add_client()))
        return tenants[-1]

    yield make
    for tenant in tenants:
        tenant.leave()


@pytest.fixture
def tenant(new_tenant: Callable[[], Tenant]) -> Tenant:
    """A tenant that nobody else uses."""
    return new_tenant()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[RunningService]:
    """A service that the test may stop and kill."""
    running = RunningService(tmp_path / "data")
    try:
        yield running.start()
    finally:
        running.end()


@pytest.fixture
def own_tenant(own_service: RunningService) -> Iterator[Tenant]:
    """A tenant of the service that the test may stop and kill."""
    tenant = Tenant(own_service, own_service.add_client())
    yield tenant
    tenant.leave()
