"""What a job may use, and noticing that it used more: time, memory, processes, disk."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from airflow_training.exceptions import coded
from airflow_training.service.runners.process.cgroup import Cgroup
from airflow_training.service.runners.process.meter import ProcessMeter
from airflow_training.service.runners.supervisor.usage import Used

_MEGABYTE = 1024 * 1024

OUT_OF_TIME = coded("ran for its completionTime", code="AT-456")

PROCESSES = 4096
"""Processes and threads that a job may have at a time: room for a hundred data loaders, too little for a fork bomb."""

# A client that counts the time of its job as well is to be the first to end it, and the one that tells of it: of two
# at once, it would be chance.
_AFTER_CLIENTS = 2.0

# The kernel's own killer takes a job first when the whole machine runs out of memory, and jobs leave the cpus to the
# service when it needs them. Source: proc_pid_oom_score_adj(5), nice(2).
KILLED_FIRST = 800
_NICE = 10

# The disk is looked at this rarely, in multiples of what a look takes, and never more often than each two seconds.
_DISK_SHARE = 30
_DISK_INTERVAL = 2.0


@dataclass(frozen=True)
class JobLimits:
    """What a job may use.

    Attributes:
        cpus: How many cpus' time, where the machine has control groups.
        memory: MB.
        disk: MB in its folder.
        log: Bytes of its output that are kept.
        seconds: How long it may run; None if nothing limits it.
    """

    cpus: int
    memory: int
    disk: int
    log: int
    seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """The limits as JSON can hold them."""
        return asdict(self)


class Watch:
    """Watches one attempt at a job while it runs: its time, and the disk that it takes.

    Args:
        limits: What it may use.
        folder: The folder whose size counts.
    """

    def __init__(self, limits: JobLimits, folder: Path) -> None:
        self._limits = limits
        self._folder = folder
        self._end = float("inf")
        self._next_disk = 0.0

    def start_the_clock(self) -> None:
        """The command starts: from now on its time counts."""
        if self._limits.seconds is not None:
            self._end = time.monotonic() + self._limits.seconds + _AFTER_CLIENTS

    def enter(self) -> None:
        """Called in the process that is to become the job, just before it does."""

    def kill(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """End the job by force, every process of it."""
        found = processes()
        # A whole group of processes ends at one stroke, however fast it multiplies: one by one, it could outrun us.
        for group in _process_groups(found):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def close(self) -> None:
        """Nothing of the attempt runs any more."""

    @property
    def time_is_up(self) -> bool:
        """Whether the job has run for as long as it may."""
        return time.monotonic() > self._end

    def overstepped(self, processes: Callable[[], list[psutil.Process]]) -> str:
        """Say what the job used too much of; an empty text where it did not.

        Args:
            processes: Finds all of its processes; asked only where there is no control group.
        """
        return self._disk()

    def used(self, processes: Callable[[], list[psutil.Process]]) -> Used | None:
        """Tell what the job has used so far; None where that is seen elsewhere.

        Args:
            processes: Finds all of its processes; asked only where there is no control group.
        """
        return None

    def _disk(self) -> str:
        began = time.monotonic()
        if began < self._next_disk:
            return ""
        try:
            used = _size(self._folder) // _MEGABYTE
        except _TooDeep:
            return coded("out of disk: a path in its folder is longer than can be looked at", code="AT-454")
        ended = time.monotonic()
        self._next_disk = ended + max(_DISK_INTERVAL, _DISK_SHARE * (ended - began))
        if used <= self._limits.disk:
            return ""
        return coded(f"out of disk: used {used} of {self._limits.disk} MB", code="AT-453")


class ProcessWatch(Watch):
    """Watches an attempt that consists of processes of this machine: also their memory and their number.

    Args:
        limits: What it may use.
        folder: The folder whose size counts.
        group: The name of its control group, where the machine has such.
    """

    def __init__(self, limits: JobLimits, folder: Path, group: str) -> None:
        super().__init__(limits, folder)
        self._group = Cgroup.create(group, memory=limits.memory, cpus=limits.cpus, processes=PROCESSES)
        self._most_processes = 0 if self._group else _processes_for(PROCESSES)
        self._meter = ProcessMeter()

    def enter(self) -> None:
        """Called in the process that is to become the job, just before it does."""
        if self._group:
            self._group.join()
        elif self._most_processes:
            resource.setrlimit(resource.RLIMIT_NPROC, (self._most_processes, self._most_processes))
        os.nice(_NICE)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(KILLED_FIRST))

    def kill(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """End the job by force, every process of it."""
        if self._group:
            self._group.kill()
        super().kill(processes)

    def close(self) -> None:
        """Nothing of the attempt runs any more."""
        if self._group:
            self._group.remove()

    def overstepped(self, processes: Callable[[], list[psutil.Process]]) -> str:
        """Say what the job used too much of; an empty text where it did not."""
        return self._memory_or_processes(processes) or super().overstepped(processes)

    def used(self, processes: Callable[[], list[psutil.Process]]) -> Used | None:
        """Tell what the job has used so far."""
        counted = self._group and self._group.used()
        return counted or self._meter.measure(processes())

    def _memory_or_processes(self, find: Callable[[], list[psutil.Process]]) -> str:
        limit = self._limits.memory
        if self._group:
            if self._group.ran_out_of_memory:
                return out_of_memory(limit, limit)
            return _too_many if self._group.ran_out_of_processes else ""
        processes = find()
        if len(processes) > PROCESSES:
            return _too_many
        # What processes share counts once, which is slow to find out, and needed only near the limit.
        if _memory(processes, exact=False) > limit and (used := _memory(processes, exact=True)) > limit:
            return out_of_memory(used, limit)
        return ""


def out_of_memory(used: int, limit: int) -> str:
    """Say that a job used more megabytes than it may."""
    return coded(f"out of memory: used {used} of {limit} MB", code="AT-452")


_too_many = coded(f"too many processes: {PROCESSES} and more", code="AT-455")


def _processes_for(number: int) -> int:
    """The limit of this user's processes that leaves room for so many more; 0 where the kernel has no such limit.

    Source: getrlimit(2), RLIMIT_NPROC: it counts all threads of a user, and does not hold for root.
    """
    user = os.getuid()
    if user == 0:
        return 0
    mine = [process for process in psutil.process_iter(["uids", "num_threads"]) if process.info["uids"]]
    wanted = number + sum(p.info["num_threads"] or 1 for p in mine if p.info["uids"].real == user)
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    return wanted if most == resource.RLIM_INFINITY else min(wanted, most)


def _process_groups(processes: Iterable[psutil.Process]) -> set[int]:
    """The groups that processes are in, but for our own."""
    groups = set()
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            group = os.getpgid(process.pid)
            # Looked at afterwards: the process id has not been given to another meanwhile.
            if process.is_running():
                groups.add(group)
    return groups - {os.getpgid(0)}


def _memory(processes: Iterable[psutil.Process], *, exact: bool) -> int:
    """Megabytes that processes use."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss if exact else process.memory_info().rss
    return total // _MEGABYTE


class _TooDeep(Exception):
    """A path is longer than the kernel takes, and nobody can say what is below it."""


@contextlib.contextmanager
def _tolerant() -> Iterator[None]:
    """Take no notice of what is gone before it is looked at, or may not be."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _TooDeep from error


def _size(folder: Path) -> int:
    """Bytes on the disk of a folder, as `du` counts them; a symbolic link is not followed, a hard link counts once."""
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
