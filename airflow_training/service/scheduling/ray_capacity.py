"""A Ray cluster as the machine that jobs run on: what its nodes have together, and whether it can be reached."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from airflow_training.service.errors import RayAway, RayRefused
from airflow_training.service.runners.ray.api import Node, RayApi
from airflow_training.service.runners.runner import JobKey
from airflow_training.service.scheduling.capacity import MEGABYTE, Machine
from airflow_training.service.scheduling.resources import Amount
from airflow_training.service.settings import RaySettings

_logger = logging.getLogger(__name__)

# Until the cluster was seen: one that says nothing of memory gets what the basic plan has, and gpus may come.
_UNKNOWN = Amount(1, 4096, 2**31 - 1)


class RayMachine(Machine):
    """What a cluster has for jobs; nodes may come and go.

    Args:
        ray: Where it is.
        cpus: Processors for jobs; those of its nodes if None. Of a cluster that grows, what it may grow to.
        memory: MB for jobs; that of its nodes if None.
        gpus: Graphics processors for jobs; those of its nodes if None.
    """

    def __init__(self, ray: RaySettings, cpus: int | None, memory: int | None, gpus: int | None) -> None:
        super().__init__(_UNKNOWN, ())
        self._ray = ray
        self._given = (cpus, memory, gpus)
        self._found: tuple[Amount, ...] = ()
        self.away = f"waiting for Ray at {ray.address}, which was not asked yet"

    def refresh(self) -> None:
        """Look at the cluster; safe to repeat."""
        try:
            nodes = asyncio.run(self._nodes())
        except (RayAway, RayRefused) as error:
            away = f"waiting for Ray at {self._ray.address}, which does not answer: {error}"
            if away != self.away:
                _logger.warning("Jobs are %s", away)
            self.away = away
            return
        # A node without cpus runs none of our jobs; often the head is one.
        amounts = [Amount(node.cpus, node.memory // MEGABYTE, node.gpus) for node in nodes if node.cpus]
        self._found = tuple(amounts)
        self.capacity = self._capacity(amounts)
        self.away = "" if amounts or any(self._given) else f"waiting for Ray at {self._ray.address}, which has no cpus"
        self.revision += 1

    def granted(self, asked: Amount) -> Amount:
        """What a job gets that asks for so much: of cpus and memory not more than one node has."""
        nodes = [node for node in self._found if node.gpus >= asked.gpus] or self._found
        cpus, memory, _ = self._given
        fitting = (
            Amount(min(asked.cpus, cpus or node.cpus), min(asked.memory, memory or node.memory), asked.gpus)
            for node in nodes
        )
        return max(fitting, default=asked)

    def take(self, key: JobKey, amount: Amount, gpus: Sequence[str] | None = None) -> tuple[str, ...]:
        """Give a job its part; which graphics processors it gets is for Ray to say, and here they are only counted."""
        return super().take(key, amount, gpus or [str(index) for index in range(amount.gpus)])

    def _capacity(self, nodes: Sequence[Amount]) -> Amount:
        seen = (sum(part) for part in zip(*nodes, strict=True)) if nodes else (1, 1, 0)
        return Amount(*(given or found for given, found in zip(self._given, seen, strict=True)))

    async def _nodes(self) -> list[Node]:
        async with RayApi(self._ray.address, self._ray.headers) as ray:
            return await ray.nodes()
