"""Waiting for a state: longer on a machine that is slow, or busy with something else.

Attributes:
    SLOWNESS: How much longer than on a quiet machine of 2026 a calculation takes here, one at least; measured once, by
        the first process of a run.
    PATIENCE: Seconds that anything may take. Nothing waits so long where all goes well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_CALCULATION = "sum(i * i for i in range(5_000_000))"
# Seconds, the start of Python included.
_QUIET = 0.25
# The workers of pytest-xdist inherit it.
_VARIABLE = "TESTS_SLOWNESS"


def _measured() -> float:
    """The best of three, since others may do something just then; a machine ten times as slow is out of order."""
    samples = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", _CALCULATION], check=True)
        samples.append(time.monotonic() - began)
    return min(max(1.0, min(samples) / _QUIET), 10.0)


if _VARIABLE not in os.environ:
    os.environ[_VARIABLE] = str(_measured())
SLOWNESS = float(os.environ[_VARIABLE])
PATIENCE = 1200 * SLOWNESS


def wait_for(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something to see, and return it.

    Each look is a little later than the one before. On a busy machine looks would delay what they wait for, so they
    take a fifth of the time; more only if one takes most of a second.
    """
    began, interval = time.monotonic(), 0.02
    while True:
        looked = time.monotonic()
        if seen := look():
            return seen
        now = time.monotonic()
        if now - began > PATIENCE:
            raise AssertionError(f"waited {PATIENCE:.0f} s in vain: {what}")
        time.sleep(max(interval, min(4 * (now - looked), 3)))
        interval = min(interval * 1.2, 0.5)
