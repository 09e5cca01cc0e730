"""Samples of what a job uses while it runs: cpus, memory, graphics processors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from airflow_training.service.runners.supervisor.gpu_meter import GpuMeter

# Seconds between two samples at first. A job that runs for long changes slowly: each sample is then later by this part
# of the time that was sampled so far.
_INTERVAL = 2.0
_PART = 1 / 2048


class Used(NamedTuple):
    """What a job has used until a moment.

    Attributes:
        cpu_seconds: Seconds of one cpu's time, so far.
        memory: MB at that moment, without what the kernel keeps of files and can give up.
    """

    cpu_seconds: float
    memory: float


class Sample(NamedTuple):
    """What a job used: see `airflow_training.api.usage.UsageSample`, which a node of Ray has no package to import."""

    time: float
    cpus: float
    memory: float
    gpus: float | None = None
    gpu_memory: float | None = None


class Sampler:
    """Takes a sample of what a job uses, now and then.

    Args:
        take: Is given the samples.
        gpus: The ids of the job's graphics processors, as `CUDA_VISIBLE_DEVICES` has them.
    """

    def __init__(self, take: Callable[[Sample], None], gpus: Sequence[str]) -> None:
        self._take = take
        self._gpus = GpuMeter(gpus)
        self._began = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """Another program starts, whose cpu time may be counted anew."""
        self._before: tuple[float, float] | None = None
        self._next = 0.0

    def look(self, measure: Callable[[], Used | None]) -> None:
        """Take a sample, if it is time for one.

        Args:
            measure: Tells what was used; None where it cannot be told.
        """
        now = time.monotonic()
        if now < self._next:
            return
        # What cannot be measured is not tried again at once either.
        self._next = now + max(_INTERVAL, (now - self._began) * _PART)
        used = measure()
        if used is None:
            return
        now = time.monotonic()
        before, self._before = self._before, (now, used.cpu_seconds)
        # It is less where what counts it was made anew.
        if before and used.cpu_seconds >= before[1]:
            cpus = (used.cpu_seconds - before[1]) / (now - before[0])
            gpus, gpu_memory = self._gpus.read()
            self._take(Sample(round(time.time(), 3), round(cpus, 3), round(used.memory, 1), gpus, gpu_memory))
