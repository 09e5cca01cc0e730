"""The file in the state folder of a job that keeps the samples of what it used, a JSON list in each line.

```
[1795594084.81, 0.98, 212.4, null, null]     time, cpus, memory, gpus, gpu_memory
```

It never holds more than `MOST`: of so many, each two become one, and what is looked at later is as even as before. What
cannot be read or written is left out, since no job is to fail for want of a sample.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from airflow_training.service.durable_files import opened, read_start, write_atomic
from airflow_training.service.runners.supervisor.usage import Sample

USAGE_FILE = "usage.ndjson"

MOST = 4096
"""Samples in a file at most."""

# No line of ours is longer; a job that runs as the user of the service may have written any.
_LONGEST_LINE = 200
_LONGEST_FILE = MOST * _LONGEST_LINE
_LARGEST = 1e15
# Seconds in which what is told again was told before.
_AGAIN = 60.0


class UsageFile:
    """Keeps the samples of one job; goes on with those that are there.

    Args:
        state: The state folder of the job.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._file = state / USAGE_FILE
        self._count = 0
        # None where the end of the file is not known to be a whole line.
        self._last: float | None = None

    def add(self, sample: Sample) -> None:
        """Keep a sample, unless one of that time or a later one is there: Ray tells some again.

        One of long before is that of another attempt, or the clock was set back: those after it go.
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
        with opened(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as descriptor:
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
    """The samples of a job in the order of time; what is no sample is left out, such as a last line that is torn."""
    try:
        content = read_start(state / USAGE_FILE, _LONGEST_FILE)
    except OSError:
        return []
    samples: list[Sample] = []
    for line in content.splitlines():
        sample = _sample(line)
        if sample and (not samples or sample.time > samples[-1].time):
            samples.append(sample)
    return samples[-MOST:]


def halved(samples: list[Sample]) -> list[Sample]:
    """Make one of each two: with the average of what was used in the time of both, and the greatest memory."""
    merged: list[Sample] = []
    for first, second in zip(samples[::2], samples[1::2], strict=False):
        # When the first of all began is not known: as long before it as the second came after it.
        begin = merged[-1].time if merged else first.time - (second.time - first.time)
        weight = (first.time - begin) / (second.time - begin)
        merged.append(
            Sample(
                second.time,
                round(first.cpus * weight + second.cpus * (1 - weight), 3),
                max(first.memory, second.memory),
                _average(first.gpus, second.gpus, weight),
                _greatest(first.gpu_memory, second.gpu_memory),
            )
        )
    return merged + samples[len(merged) * 2 :]


def sample_of(values: Any) -> Sample | None:
    """Read a sample that was a list; None where it is none."""
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


def _greatest(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)
