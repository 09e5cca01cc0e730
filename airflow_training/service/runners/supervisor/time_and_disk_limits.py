"""The limits of a job that its supervisor enforces with each backend: completion time and disk.

Memory and processes are limited, and too little memory is recognized, by the backend:
process/memory_and_process_limits.py and container/create_and_remove.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from airflow_training.exceptions import coded
from airflow_training.service.runners.run_folder import JobLimits
from airflow_training.service.runners.supervisor.usage import Used

_MEGABYTE = 1024 * 1024

OUT_OF_TIME = coded("exceeded its completionTime", code="AT-456")

PROCESSES = 4096
"""Processes and threads that a job may have at a time: room for a hundred data loaders, too little for a fork bomb."""

KILLED_FIRST = 800
"""The kernel ends a job first when the machine runs out of memory. Source: proc_pid_oom_score_adj(5)."""

# Seconds. A client that enforces the time of its job as well is to end it first, and to report it: with both at once,
# it would be chance.
_AFTER_CLIENTS = 2.0

# The disk is measured each two seconds at most, and more rarely if that would take more than a 30th of the time.
_DISK_SHARE = 30
_DISK_INTERVAL = 2.0


def out_of_memory(used: int, limit: int) -> str:
    """The message of a job that used more MB than it may."""
    return coded(f"out of memory: used {used} of {limit} MB", code="AT-452")


class Limiter:
    """Enforces the limits of one attempt while it runs: its completion time, and its disk.

    Args:
        limits: What it may use.
        folder: The folder whose size counts.
    """

    def __init__(self, limits: JobLimits, folder: Path) -> None:
        self._limits = limits
        self._folder = folder
        self._end = float("inf")
        self._next_disk = 0.0

    def start_clock(self) -> None:
        """The command starts: from now on its completion time counts."""
        if self._limits.seconds is not None:
            self._end = time.monotonic() + self._limits.seconds + _AFTER_CLIENTS

    def enter(self) -> None:
        """Called between fork and exec of the program."""

    def kill(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """End the job by force, every process of it."""
        found = processes()
        # Stopped first: no shell lives on for a moment to report in the log that a program of it was killed.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            # A whole group of processes ends at once, however fast it forks: one by one, it could outrun us.
            for group in _process_groups(found):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, number)
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)

    def close(self) -> None:
        """Nothing of the attempt runs any more."""

    @property
    def timed_out(self) -> bool:
        """Whether the completion time is over."""
        return time.monotonic() > self._end

    def exceeded(self, processes: Callable[[], list[psutil.Process]]) -> str:
        """Return which limit the job exceeded, as the message of the job; an empty text if none.

        Args:
            processes: Finds all of its processes; called only without a control group.
        """
        began = time.monotonic()
        if began < self._next_disk:
            return ""
        try:
            used = _size(self._folder) // _MEGABYTE
        except _TooDeep:
            return coded("out of disk: a path in its folder is too long to be measured", code="AT-454")
        ended = time.monotonic()
        self._next_disk = ended + max(_DISK_INTERVAL, _DISK_SHARE * (ended - began))
        if used <= self._limits.disk:
            return ""
        return coded(f"out of disk: used {used} of {self._limits.disk} MB", code="AT-453")

    def used(self, processes: Callable[[], list[psutil.Process]]) -> Used | None:
        """Return what the job has used so far; None if that is measured elsewhere.

        Args:
            processes: Finds all of its processes; called only without a control group.
        """
        return None


def _process_groups(processes: Iterable[psutil.Process]) -> set[int]:
    """The groups of processes, except our own."""
    groups = set()
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            group = os.getpgid(process.pid)
            # Checked afterwards: the process id has not been reused meanwhile.
            if process.is_running():
                groups.add(group)
    return groups - {os.getpgid(0)}


class _TooDeep(Exception):
    """A path is longer than the kernel takes: the size of what is below it is unknown."""


@contextlib.contextmanager
def _tolerant() -> Iterator[None]:
    """Skip what is gone before it is measured, or is not accessible."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _TooDeep from error


def _size(folder: Path) -> int:
    """Bytes of a folder on the disk, as `du` counts them: symbolic links are not followed, a hard link counts once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        with _tolerant(), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with _tolerant():
                    facts = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif facts.st_nlink > 1:
                        if (file := (facts.st_dev, facts.st_ino)) in seen:
                            continue
                        seen.add(file)
                    total += facts.st_blocks * 512
    return total
