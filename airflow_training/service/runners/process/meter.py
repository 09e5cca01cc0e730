"""What processes use, where no control group counts it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import psutil

from airflow_training.service.runners.supervisor.usage import Used

_MEGABYTE = 1024 * 1024


class ProcessMeter:
    """Adds up what the processes of a job use.

    What one used between a look and its end is not seen, and memory that several share counts for each.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._known: dict[psutil.Process, float] = {}

    def measure(self, processes: Iterable[psutil.Process]) -> Used:
        """Look at those that there are now."""
        known: dict[psutil.Process, float] = {}
        memory = 0
        for process in processes:
            with contextlib.suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                known[process] = times.user + times.system
                memory += process.memory_info().rss
        self._seconds += sum(max(0.0, now - self._known.get(process, 0.0)) for process, now in known.items())
        self._known = known
        return Used(self._seconds, memory / _MEGABYTE)
