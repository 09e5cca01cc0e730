"""The resource usage of a job while it runs: CPUs, memory and GPUs, in samples that its run folder keeps.

```
[1795594084.81, 0.98, 212.4, null, null]     time, cpus, memory, gpus, gpu_memory
```

The file has such a JSON list in each line, and at most `MOST` of them: then each two become one, and the curve stays
even. What cannot be read or written is left out: no job may fail for a sample.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from airflow_training.service.atomic_files import opened_untrusted, read_untrusted, write_atomic

USAGE_FILE = "usage.ndjson"

MOST = 4096
"""Samples in a file at most."""

# Seconds between two samples at first. A long job changes slowly: the interval grows to this part of the time sampled
# so far.
_INTERVAL = 2.0
_PART = 1 / 2048

# Our lines are shorter; a job that runs as the service's user may have written any.
_LONGEST_LINE = 200
_LONGEST_FILE = MOST * _LONGEST_LINE
_LARGEST = 1e15
# Seconds: a sample that is older by less than this was taken before.
_AGAIN = 60.0

_MEGABYTE = 1024 * 1024


class Used(NamedTuple):
    """What a job has used up to now.

    Attributes:
        cpu_seconds: CPU time so far, in seconds.
        memory: MB now, without file caches that the kernel can drop.
    """

    cpu_seconds: float
    memory: float


class Sample(NamedTuple):
    """A sample, as in `airflow_training.api.insights.UsageSample`; a node of Ray has no pydantic to import that."""

    time: float
    cpus: float
    memory: float
    gpus: float | None = None
    gpu_memory: float | None = None


class Sampler:
    """Samples the usage of a job.

    Args:
        take: Called with each sample.
        gpus: The ids of the job's GPUs, as in `CUDA_VISIBLE_DEVICES`.
    """

    def __init__(self, take: Callable[[Sample], None], gpus: Sequence[str]) -> None:
        self._take = take
        self._gpus = GpuMeter(gpus)
        self._began = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """Another program starts: its CPU time may be counted from 0."""
        self._before: tuple[float, float] | None = None
        self._next = 0.0

    def sample_if_due(self, measure: Callable[[], Used | None]) -> None:
        """Take a sample, if it is due.

        Args:
            measure: Returns what was used; None if it cannot be measured.
        """
        now = time.monotonic()
        if now < self._next:
            return
        # Also after a failure: it is not repeated at once.
        self._next = now + max(_INTERVAL, (now - self._began) * _PART)
        used = measure()
        if used is None:
            return
        now = time.monotonic()
        before, self._before = self._before, (now, used.cpu_seconds)
        # It is less if its counter was created again.
        if before and used.cpu_seconds >= before[1]:
            cpus = (used.cpu_seconds - before[1]) / (now - before[0])
            gpus, gpu_memory = self._gpus.read()
            self._take(Sample(round(time.time(), 3), round(cpus, 3), round(used.memory, 1), gpus, gpu_memory))


class GpuMeter:
    """Measures GPUs by NVIDIA's driver, if there is one. They belong to one job, and so does their usage.

    Source: NVIDIA Management Library, nvmlDeviceGetUtilizationRates and nvmlDeviceGetMemoryInfo.

    Args:
        ids: Their ids, as in `CUDA_VISIBLE_DEVICES`: numbers or UUIDs.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._nvml: Any = None
        self._handles: list[Any] = []

    def read(self) -> tuple[float | None, float | None]:
        """Return how many GPUs are busy, such as 1.5, and MB of their memory in use; None without a GPU or a driver."""
        if not self._ids or (self._nvml is None and not self._find()):
            self._ids = ()
            return None, None
        try:
            busy = sum(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in self._handles)
            taken = sum(self._nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in self._handles)
        except self._nvml.NVMLError:
            return None, None
        return round(busy / 100, 3), round(taken / _MEGABYTE, 1)

    def _find(self) -> bool:
        try:
            # Only a job with GPUs pays for the import.
            import pynvml  # noqa: PLC0415
        except ImportError:
            return False
        try:
            pynvml.nvmlInit()
            self._handles = [_handle(pynvml, id_) for id_ in self._ids]
        except pynvml.NVMLError:
            return False
        self._nvml = pynvml
        return True


def _handle(nvml: Any, id_: str) -> Any:
    return nvml.nvmlDeviceGetHandleByIndex(int(id_)) if id_.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(id_)


class UsageFile:
    """Keeps the samples of one job, in addition to those that are there.

    Args:
        state: The run folder of the job.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._file = state / USAGE_FILE
        self._count = 0
        # None if the file may not end with a whole line.
        self._last: float | None = None

    def add(self, sample: Sample) -> None:
        """Keep a sample, unless it is not newer than the last one: frames of Ray may come again.

        A much older one belongs to another attempt, or the clock was set back: it replaces the later ones.
        """
        with contextlib.suppress(OSError):
            if self._last is None:
                self._rewrite(read_usage(self._state))
            if self._last is not None and sample.time <= self._last:
                if sample.time > self._last - _AGAIN:
                    return
                self._rewrite([kept for kept in read_usage(self._state) if kept.time < sample.time])
            if self._count >= MOST:
                self._rewrite(halved(read_usage(self._state)))
            self._append(sample)

    def _append(self, sample: Sample) -> None:
        self._last = None
        line = _line(sample)
        with opened_untrusted(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as descriptor:
            whole = os.write(descriptor, line) == len(line)
        if whole:
            self._count += 1
            self._last = sample.time

    def _rewrite(self, samples: list[Sample]) -> None:
        if samples or self._file.exists():
            write_atomic(self._file, b"".join(map(_line, samples)))
        self._count = len(samples)
        self._last = samples[-1].time if samples else 0.0


def read_usage(state: Path) -> list[Sample]:
    """The samples of a job by time; what is not a sample is left out, such as an incomplete last line."""
    try:
        content = read_untrusted(state / USAGE_FILE, _LONGEST_FILE)
    except OSError:
        return []
    samples: list[Sample] = []
    for line in content.splitlines():
        sample = _sample(line)
        if sample and (not samples or sample.time > samples[-1].time):
            samples.append(sample)
    return samples[-MOST:]


def halved(samples: list[Sample]) -> list[Sample]:
    """Merge each two samples: the average usage weighted by time, and the peak memory."""
    merged: list[Sample] = []
    for first, second in zip(samples[::2], samples[1::2], strict=False):
        # The first interval is unknown: it is taken to be as long as the second.
        begin = merged[-1].time if merged else first.time - (second.time - first.time)
        weight = (first.time - begin) / (second.time - begin)
        merged.append(
            Sample(
                second.time,
                round(first.cpus * weight + second.cpus * (1 - weight), 3),
                max(first.memory, second.memory),
                _average(first.gpus, second.gpus, weight),
                max((used for used in (first.gpu_memory, second.gpu_memory) if used is not None), default=None),
            )
        )
    return merged + samples[len(merged) * 2 :]


def sample_of(values: Any) -> Sample | None:
    """Read a sample from a JSON list; None if it is not one."""
    if not isinstance(values, list) or len(values) != len(Sample._fields):
        return None
    needed, known = values[:3], [value for value in values[3:] if value is not None]
    for value in (*needed, *known):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST:
            return None
    return Sample(*values)


def _sample(line: bytes) -> Sample | None:
    if len(line) > _LONGEST_LINE:
        return None
    try:
        return sample_of(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _line(sample: Sample) -> bytes:
    return json.dumps(sample).encode() + b"\n"


def _average(first: float | None, second: float | None, weight: float) -> float | None:
    if first is None or second is None:
        return second if first is None else first
    return round(first * weight + second * (1 - weight), 3)
