"""Fewer samples of what a job used, that show the same."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_training.api.usage import UsageSample

_WHAT = ("cpus", "memory", "gpus", "gpu_memory")


def thin(samples: Sequence[UsageSample], points: int) -> list[UsageSample]:
    """Leave out what is in between: the first, the last, and of each stretch the peak of everything are kept.

    Args:
        samples: In the order of time.
        points: How many are wanted at most, 2 or more. For a peak of everything it takes two and as many as there
            are kinds of numbers, six at most.
    """
    if len(samples) <= points:
        return list(samples)
    kinds = [kind for kind in _WHAT if any(getattr(sample, kind) is not None for sample in samples)]
    inner = len(samples) - 2
    stretches = (points - 2) // len(kinds)
    kept = {0, len(samples) - 1}
    for number in range(stretches):
        stretch = range(1 + number * inner // stretches, 1 + (number + 1) * inner // stretches)
        kept.update(_peak(samples, stretch, kind) for kind in kinds)
    return [samples[index] for index in sorted(kept)]


def _peak(samples: Sequence[UsageSample], stretch: range, kind: str) -> int:
    def value(index: int) -> float:
        known: float | None = getattr(samples[index], kind)
        return -1.0 if known is None else known

    return max(stretch, key=value)
