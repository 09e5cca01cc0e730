"""The limits of a job that is a process of this machine: memory and processes.

A control group enforces them and recognizes that the job is out of memory, if one can be created. Else the processes of
the job are measured and counted.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from airflow_training.exceptions import coded
from airflow_training.service.runners.process.cgroup import Cgroup
from airflow_training.service.runners.run_folder import JobLimits
from airflow_training.service.runners.supervisor.time_and_disk_limits import (
    KILLED_FIRST,
    PROCESSES,
    Limiter,
    out_of_memory,
)
from airflow_training.service.runners.supervisor.usage import Used

_MEGABYTE = 1024 * 1024

# Jobs leave the CPUs to the service when it needs them. Source: nice(2).
_NICE = 10

_TOO_MANY_PROCESSES = coded(f"too many processes: {PROCESSES} and more", code="AT-455")


class ProcessLimiter(Limiter):
    """Enforces memory and number of processes too.

    Args:
        limits: What the attempt may use.
        folder: The folder whose size counts.
        group: The name of its control group.
    """

    def __init__(self, limits: JobLimits, folder: Path, group: str) -> None:
        super().__init__(limits, folder)
        self._group = Cgroup.create(group, memory=limits.memory, cpus=limits.cpus, processes=PROCESSES)
        self._most_processes = 0 if self._group else _processes_for(PROCESSES)
        self._meter = ProcessMeter()

    def enter(self) -> None:
        """Called between fork and exec of the program."""
        if self._group:
            self._group.join()
        elif self._most_processes:
            resource.setrlimit(resource.RLIMIT_NPROC, (self._most_processes, self._most_processes))
        os.nice(_NICE)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(KILLED_FIRST))

    def kill(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """End the job by force, every process of it."""
        super().kill(processes)
        if self._group:  # has also what escaped from its parent, or was started meanwhile
            self._group.kill()

    def close(self) -> None:
        """Nothing of the attempt runs any more."""
        if self._group:
            self._group.remove()

    def exceeded(self, processes: Callable[[], list[psutil.Process]]) -> str:
        """Return which limit the job exceeded; an empty text if none."""
        return self._memory_or_processes(processes) or super().exceeded(processes)

    def used(self, processes: Callable[[], list[psutil.Process]]) -> Used | None:
        """Return what the job has used so far."""
        counted = self._group and self._group.used()
        return counted or self._meter.measure(processes())

    def _memory_or_processes(self, find: Callable[[], list[psutil.Process]]) -> str:
        limit = self._limits.memory
        if self._group:
            if self._group.ran_out_of_memory:
                return out_of_memory(limit, limit)
            return _TOO_MANY_PROCESSES if self._group.ran_out_of_processes else ""
        processes = find()
        if len(processes) > PROCESSES:
            return _TOO_MANY_PROCESSES
        # Shared memory counts once. To measure that is slow, and needed only near the limit.
        if _memory(processes, exact=False) > limit and (used := _memory(processes, exact=True)) > limit:
            return out_of_memory(used, limit)
        return ""


def _processes_for(number: int) -> int:
    """The limit of this user's processes that leaves room for so many more; 0 if the kernel has no such limit.

    Source: getrlimit(2), RLIMIT_NPROC: it counts all threads of a user, and does not apply to root.
    """
    user = os.getuid()
    if user == 0:
        return 0
    mine = [process for process in psutil.process_iter(["uids", "num_threads"]) if process.info["uids"]]
    wanted = number + sum(p.info["num_threads"] or 1 for p in mine if p.info["uids"].real == user)
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    return wanted if most == resource.RLIM_INFINITY else min(wanted, most)


def _memory(processes: Iterable[psutil.Process], *, exact: bool) -> int:
    """MB that processes use."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss if exact else process.memory_info().rss
    return total // _MEGABYTE


class ProcessMeter:
    """Adds up what the processes of a job use, without a control group.

    What a process used between the last measurement and its end is missing, and shared memory counts for each.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._known: dict[psutil.Process, float] = {}

    def measure(self, processes: Iterable[psutil.Process]) -> Used:
        """Measure the processes that there are now."""
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
