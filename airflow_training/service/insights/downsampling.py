"""Fewer points for a curve that looks the same.

Own lines and no library: the one that is well kept for this, tsdownsample, brings numpy, which the service needs for
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

_P = TypeVar("_P")


def thin(points: Sequence[_P], most: int, value: Callable[[_P], float]) -> list[_P]:
    """Take as many points as are wanted, so that no peak and no dip of the curve is lost.

    The first and the last stay. Those between are divided into stretches of the same number, and of each the least and
    the greatest stay.

    Args:
        points: The points, in order.
        most: How many there may be in the end, two or more.
        value: What is drawn of a point.

    >>> thin([0, 0, 9, 0, 0, 0, -9, 0], 6, lambda point: point)
    [0, 0, 9, 0, -9, 0]
    """
    if len(points) <= most:
        return list(points)
    stretches = (most - 2) // 2
    between = len(points) - 2
    drawn = list(map(value, points)).__getitem__
    kept = [points[0]]
    for number in range(stretches):
        begin, end = (1 + between * edge // stretches for edge in (number, number + 1))
        stretch = range(begin, end)
        kept += [points[place] for place in sorted({min(stretch, key=drawn), max(stretch, key=drawn)})]
    kept.append(points[-1])
    return kept
