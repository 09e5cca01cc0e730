"""The machine that jobs run on: what it has, who has which part of it, and what is free."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import psutil

from airflow_training.service.runners.runner import JobKey
from airflow_training.service.scheduling.resources import Amount

MEGABYTE = 1024 * 1024
# A tenth of the memory is for the service, its storage and the system.
_FOR_JOBS = 0.9
_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Machine:
    """What a machine has for jobs, and who has it now.

    Args:
        capacity: All of it.
        gpus: The ids of its graphics processors, as `CUDA_VISIBLE_DEVICES` has them: one for each in `capacity`.

    Attributes:
        capacity: All of it.
        away: Why it cannot be used just now; empty where it can.
        revision: Another number after each change, for who remembers what depends on the machine.
    """

    away = ""

    def __init__(self, capacity: Amount, gpus: Sequence[str]) -> None:
        self.capacity = capacity
        self.revision = 0
        self._closed = ""
        self._gpus = tuple(gpus)
        self._taken: dict[JobKey, tuple[Amount, tuple[str, ...]]] = {}

    @property
    def closed(self) -> str:
        """Why no job is started at all just now; empty where jobs are."""
        return self._closed

    @closed.setter
    def closed(self, why: str) -> None:
        if why != self._closed:
            self._closed = why
            self.revision += 1

    @property
    def free(self) -> Amount:
        """What nobody has; less than nothing where the service was started again for a smaller machine."""
        free = self.capacity
        for amount, _ in list(self._taken.values()):
            free = free.minus(amount)
        return free

    def granted(self, asked: Amount) -> Amount:
        """What a job gets that asks for so much: of cpus and memory not more than there is."""
        return Amount(min(asked.cpus, self.capacity.cpus), min(asked.memory, self.capacity.memory), asked.gpus)

    def take(self, key: JobKey, amount: Amount, gpus: Sequence[str] | None = None) -> tuple[str, ...]:
        """Give a job its part; returns the ids of its graphics processors.

        Args:
            key: The job.
            amount: What it gets.
            gpus: The ones it has already, where it runs since before a restart of the service.
        """
        if gpus is None:
            taken = {gpu for _, ids in self._taken.values() for gpu in ids}
            gpus = [gpu for gpu in self._gpus if gpu not in taken][: amount.gpus]
        self._taken[key] = (amount, tuple(gpus))
        self.revision += 1
        return tuple(gpus)

    def give_back(self, key: JobKey) -> None:
        """Take a job's part back."""
        self._taken.pop(key, None)
        self.revision += 1


def detect(cpus: int | None = None, memory: int | None = None, gpus: int | None = None) -> Machine:
    """Find out what this machine has; what is given is taken for true.

    Args:
        cpus: Processors for jobs; all that this process may use if not given.
        memory: MB for jobs; nine tenths of what there is if not given.
        gpus: Graphics processors for jobs; those of NVIDIA's driver that this process may use if not given.
    """
    ids = _gpu_ids()
    if gpus is not None:
        ids = ids[:gpus] if gpus <= len(ids) else tuple(str(index) for index in range(gpus))
    capacity = Amount(
        cpus or len(psutil.Process().cpu_affinity() or ()) or os.cpu_count() or 1,
        memory or int(_memory() * _FOR_JOBS) // MEGABYTE,
        len(ids),
    )
    return Machine(capacity, ids)


def _memory() -> int:
    """Bytes of memory; in a container, what the container may use."""
    limits = [file.read_text().strip() for file in _LIMIT_FILES if file.exists()]
    return min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit.isdecimal())])


def _gpu_ids() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(id_ for id_ in re.split(r"\s*,\s*", visible.strip()) if id_ not in ("", "-1"))
    devices = (re.fullmatch(r"nvidia(\d+)", file.name) for file in Path("/dev").iterdir())
    return tuple(sorted((device[1] for device in devices if device), key=int))
