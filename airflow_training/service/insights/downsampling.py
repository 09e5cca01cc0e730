"""Downsampling: fewer points, and no peak is lost.

Implemented here because tsdownsample, the maintained library for this, needs numpy, which the service uses for nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from airflow_training.api.insights import UsageSample

_P = TypeVar("_P")

_USAGE_FIELDS = ("cpus", "memory", "gpus", "gpu_memory")


def downsample(points: Sequence[_P], limit: int, peaks: Sequence[Callable[[_P], float]]) -> list[_P]:
    """Keep the first point, the last, and the peaks of each bucket between them.

    Args:
        points: The points, in order.
        limit: The number of points to keep at most, two or more. With fewer than two and one for each function of
            `peaks`, only the ends are kept.
        peaks: The functions whose maximum in each bucket is kept.

    >>> downsample([0, 0, 9, 0, 0, 0, -9, 0], 6, [lambda point: point, lambda point: -point])
    [0, 0, 9, 0, -9, 0]
    """
    if len(points) <= limit:
        return list(points)
    inner = len(points) - 2
    buckets = (limit - 2) // len(peaks)
    values = [list(map(peak, points)) for peak in peaks]
    kept = {0, len(points) - 1}
    for number in range(buckets):
        begin, end = (1 + inner * edge // buckets for edge in (number, number + 1))
        kept.update(max(range(begin, end), key=value.__getitem__) for value in values)
    return [points[index] for index in sorted(kept)]


def downsample_usage(samples: Sequence[UsageSample], limit: int) -> list[UsageSample]:
    """Downsample by `downsample`; a limit of six or more keeps the peak of every field."""

    def field(name: str) -> Callable[[UsageSample], float]:
        return lambda sample: -1.0 if (value := getattr(sample, name)) is None else value

    measured = [name for name in _USAGE_FIELDS if any(getattr(sample, name) is not None for sample in samples)]
    return downsample(samples, limit, [field(name) for name in measured])
