"""Python's garbage collector in a triggerer that follows many jobs.

Every few seconds it would look through all objects of Airflow and of all trainings, most of which stay, and the event
loop would stand still for up to a third of a second. What has survived once is kept from it (`gc.freeze`), until so
many trainings have ended that looking for what they left is worth it.
"""

from __future__ import annotations

import gc
from functools import cache

# Trainings that have ended before all is looked through again, where few are followed.
_FEW = 100
_EVERYTHING = 2


class Garbage:
    """Sees to the garbage collector of this process."""

    def __init__(self) -> None:
        self._ended = 0
        # All of Airflow is imported by now.
        gc.freeze()
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == _EVERYTHING:
            gc.freeze()

    def ended(self, followed: int) -> None:
        """Tell that a training is followed no longer.

        Args:
            followed: How many still are.
        """
        self._ended += 1
        if self._ended >= max(_FEW, followed):
            self._ended = 0
            gc.unfreeze()


@cache
def garbage() -> Garbage:
    """That of this process."""
    return Garbage()
