"""Python's garbage collector in a triggerer that follows many jobs.

Every few seconds it would look through all objects of Airflow and of all trainings, most of which stay, and the event
loop would stand still for up to a third of a second. While jobs are followed, what has survived once is kept from it
(`gc.freeze`); every ten minutes it looks through everything again.
"""

from __future__ import annotations

import gc
import time
from functools import cache

_EVERYTHING = 2
# Seconds after which what was kept from it is looked through again: what nobody needs any more may be among it.
_AGAIN = 600.0


class Garbage:
    """Sees to the garbage collector of this process."""

    def __init__(self) -> None:
        self._followed = 0
        self._looked = time.monotonic()
        gc.callbacks.append(self._collected)

    def begin(self) -> None:
        """Tell that one more job is followed."""
        if not self._followed:
            # All of Airflow is imported by now.
            gc.freeze()
            self._looked = time.monotonic()
        self._followed += 1

    def end(self) -> None:
        """Tell that a job is followed no longer."""
        self._followed -= 1
        if not self._followed:
            gc.unfreeze()

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase != "stop" or info["generation"] != _EVERYTHING or not self._followed:
            return
        if time.monotonic() - self._looked < _AGAIN:
            gc.freeze()
        else:
            gc.unfreeze()
            self._looked = time.monotonic()


@cache
def garbage() -> Garbage:
    """That of this process."""
    return Garbage()
