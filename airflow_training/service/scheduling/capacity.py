"""The capacity that jobs run on, of this machine or of a Ray cluster: total, allocated and free resources."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from airflow_training.api.resources import Resources
from airflow_training.service.errors import RayRefused, RayUnavailable
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.settings import RaySettings

if TYPE_CHECKING:
    from airflow_training.service.runners.ray.api import Node

_logger = logging.getLogger(__name__)

MEGABYTE = 1024 * 1024
# A tenth of the memory is for the service, its storage and the system.
_FOR_JOBS = 0.9
_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

# Until the cluster is seen: jobs without `memory` get that of the basic plan, and gpus may come.
_UNKNOWN_CLUSTER = Resources(1, 4096, 2**31 - 1)


class Capacity:
    """The resources of a machine, and their allocation to jobs.

    Args:
        total: All resources for jobs.
        gpus: The ids of the GPUs, as in `CUDA_VISIBLE_DEVICES`: one for each in `total`.

    Attributes:
        total: All resources for jobs.
        unavailable: Why the machine cannot be used now; empty if it can.
        revision: Changes with each change of the capacity, for caches that depend on it.
    """

    unavailable = ""

    def __init__(self, total: Resources, gpus: Sequence[str]) -> None:
        self.total = total
        self.revision = 0
        self._blocked = ""
        self._gpus = tuple(gpus)
        self._allocations: dict[JobKey, tuple[Resources, tuple[str, ...]]] = {}

    @property
    def blocked(self) -> str:
        """Why no job is started at all now; empty if jobs are started."""
        return self._blocked

    @blocked.setter
    def blocked(self, reason: str) -> None:
        if reason != self._blocked:
            self._blocked = reason
            self.revision += 1

    @property
    def free(self) -> Resources:
        """The resources that are not allocated; negative if the service was restarted on a smaller machine."""
        free = self.total
        for resources, _ in list(self._allocations.values()):
            free = free.minus(resources)
        return free

    def allocation(self, requested: Resources) -> Resources:
        """The resources that a request gets: cpus and memory are limited to the total."""
        return Resources(min(requested.cpus, self.total.cpus), min(requested.memory, self.total.memory), requested.gpus)

    def allocate(self, key: JobKey, resources: Resources, gpus: Sequence[str] | None = None) -> tuple[str, ...]:
        """Allocate resources to a job; returns the ids of its GPUs.

        Args:
            key: The job.
            resources: Its allocation.
            gpus: The GPUs that it already has, if it has been running since before a restart of the service.
        """
        if gpus is None:
            allocated = {gpu for _, ids in self._allocations.values() for gpu in ids}
            gpus = [gpu for gpu in self._gpus if gpu not in allocated][: resources.gpus]
        self._allocations[key] = (resources, tuple(gpus))
        self.revision += 1
        return tuple(gpus)

    def release(self, key: JobKey) -> None:
        """Free the resources of a job."""
        self._allocations.pop(key, None)
        self.revision += 1


class RayCapacity(Capacity):
    """The resources of a Ray cluster, whose nodes may come and go.

    Args:
        ray: The cluster.
        cpus: CPUs for jobs; those of the nodes if None. For a cluster that scales, its maximum.
        memory: MB for jobs; that of the nodes if None.
        gpus: GPUs for jobs; those of the nodes if None.
    """

    def __init__(self, ray: RaySettings, cpus: int | None, memory: int | None, gpus: int | None) -> None:
        super().__init__(_UNKNOWN_CLUSTER, ())
        self._ray = ray
        self._configured = (cpus, memory, gpus)
        self._nodes: tuple[Resources, ...] = ()
        self.unavailable = f"waiting for Ray at {ray.address}, which has not been queried yet"

    def refresh(self) -> None:
        """Read the nodes of the cluster; safe to repeat."""
        try:
            nodes = asyncio.run(self._read_nodes())
        except (RayUnavailable, RayRefused) as error:
            unavailable = f"waiting for Ray at {self._ray.address}, which is unreachable: {error}"
            if unavailable != self.unavailable:
                _logger.warning("Jobs are %s", unavailable)
            self.unavailable = unavailable
            return
        # A node without cpus, often the head node, runs none of our jobs.
        self._nodes = tuple(Resources(node.cpus, node.memory // MEGABYTE, node.gpus) for node in nodes if node.cpus)
        sums = (sum(column) for column in zip(*map(astuple, self._nodes), strict=True)) if self._nodes else (1, 1, 0)
        self.total = Resources(*(own or found for own, found in zip(self._configured, sums, strict=True)))
        usable = self._nodes or any(self._configured)
        self.unavailable = "" if usable else f"waiting for Ray at {self._ray.address}, which has no CPUs"
        self.revision += 1

    def allocation(self, requested: Resources) -> Resources:
        """The resources that a request gets: cpus and memory are limited to those of one node."""
        nodes = [node for node in self._nodes if node.gpus >= requested.gpus] or self._nodes
        cpus, memory, _ = self._configured
        return max(
            (
                Resources(
                    min(requested.cpus, cpus or node.cpus), min(requested.memory, memory or node.memory), requested.gpus
                )
                for node in nodes
            ),
            default=requested,
        )

    def allocate(self, key: JobKey, resources: Resources, gpus: Sequence[str] | None = None) -> tuple[str, ...]:
        """Allocate resources to a job. Ray chooses its GPUs; here they are only counted."""
        return super().allocate(key, resources, gpus or [str(index) for index in range(resources.gpus)])

    async def _read_nodes(self) -> list[Node]:
        # Its HTTP client is slow to import, and most services have no cluster.
        from airflow_training.service.runners.ray.api import RayApi  # noqa: PLC0415

        async with RayApi(self._ray.address, self._ray.headers) as ray:
            return await ray.nodes()


def detect(cpus: int | None = None, memory: int | None = None, gpus: int | None = None) -> Capacity:
    """Detect the capacity of this machine; values that are given are not checked.

    Args:
        cpus: CPUs for jobs; all that this process may use if not given.
        memory: MB for jobs; nine tenths of the machine's memory if not given.
        gpus: GPUs for jobs; those of NVIDIA's driver that this process may use if not given.
    """
    ids = _gpu_ids()
    if gpus is not None:
        ids = ids[:gpus] if gpus <= len(ids) else tuple(str(index) for index in range(gpus))
    total = Resources(
        cpus or len(psutil.Process().cpu_affinity() or ()) or os.cpu_count() or 1,
        memory or int(_memory() * _FOR_JOBS) // MEGABYTE,
        len(ids),
    )
    return Capacity(total, ids)


def _memory() -> int:
    """Bytes of memory; in a container, its limit."""
    limits = [file.read_text().strip() for file in _LIMIT_FILES if file.exists()]
    return min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit.isdecimal())])


def _gpu_ids() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(id_ for id_ in re.split(r"\s*,\s*", visible.strip()) if id_ not in ("", "-1"))
    devices = (re.fullmatch(r"nvidia(\d+)", file.name) for file in Path("/dev").iterdir())
    return tuple(sorted((device[1] for device in devices if device), key=int))
