"""A service with a runner: `process`, `container` or `ray`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engines.podman import Podman
from tests.engines.ray import RayCluster
from tests.service.support import RunningService

RAY = pytest.param("ray", marks=pytest.mark.xdist_group("ray"))


@contextmanager
def running_on(runner: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[RunningService]:
    """Run it, with the engine that it needs, and leave nothing on that."""
    podman: Podman | None = request.getfixturevalue("podman") if runner == "container" else None
    ray: RayCluster | None = request.getfixturevalue("ray") if runner == "ray" else None
    options = ("--runner", runner, *(ray.options() if ray else ()))
    service = RunningService(folder, podman.environment if podman else None, options=options)
    with service.running():
        yield service
    if podman:
        podman.remove_containers(service.data)
