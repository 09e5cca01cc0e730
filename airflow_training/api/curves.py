"""The curves of a job: what its metrics were, from its first epoch or step to its last, as they travel."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, Field

Unit = Literal["epoch", "step", "value"]

MOST_POINTS = 10_000
"""The most points of one curve that a reply holds."""


class Point(NamedTuple):
    """One value of a metric.

    Attributes:
        time: When it was told, in seconds since 1970.
        step: Where on the curve it lies: the epoch or the step.
        value: The value, a finite number.
    """

    time: float
    step: float
    value: float


class Curve(BaseModel):
    """The values of one metric, in the order of their steps.

    Attributes:
        name: The metric's name.
        unit: What its steps are: epochs, steps of the script's own counting, or, where the script told neither, the
            how many-eth value it is.
        points: The values; where there are more than were asked for, thinned so that the curve looks the same.
        told: How many values the job told.
    """

    name: str
    unit: Unit
    points: list[Point]
    told: int = Field(ge=0)


class JobMetrics(BaseModel):
    """The curves of a job, in the order of their names.

    A metric that was told both by epoch and by step has a curve of each unit.
    """

    curves: list[Curve]
