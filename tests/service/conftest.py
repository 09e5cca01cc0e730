"""Services on free ports, in folders of their own, and tenants of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service.support import RunningService, Tenant


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One service for the tests that need no other; what must not reach a job stands in its environment."""
    environment = {
        "AIRFLOW__CORE__FERNET_KEY": "secret",
        "CLOUD_TOKEN": "secret",
        "PYTHONPATH": "/nowhere",
        "TZ": "UTC",
    }
    service = RunningService(tmp_path_factory.mktemp("service") / "with a space", environment)
    with service.running():
        yield service


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
def own_service(tmp_path: Path) -> Iterator[RunningService]:
    """A service that the test may stop and kill."""
    service = RunningService(tmp_path)
    with service.running():
        yield service


@pytest.fixture
def own_tenant(own_service: RunningService) -> Iterator[Tenant]:
    """A tenant of the service that the test may stop and kill."""
    tenant = Tenant(own_service)
    yield tenant
    tenant.leave()
