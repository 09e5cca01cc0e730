"""A Linux control group for one job: its memory, cpus and processes are limited, and all of them can be ended.

Source: cgroups(7); the kernel's documents on cgroup v1 (memory, pids, cpu) and cgroup v2.

Both versions are used where they can be: where a group can be made below the group of this process or, with version 2,
beside it, which takes root or a delegated group. Elsewhere `Cgroup.create` returns None.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from airflow_training.service.runners.process.cgroup_tree import INACTIVE_FILES, lines_of, number_in, parents
from airflow_training.service.runners.supervisor.usage import Used

_MEGABYTE = 1024 * 1024
_PERIOD = 100_000  # microseconds in which a group may use its cpus

# What is written where, in the words of each version; the first file of a controller must be there.
_FILES: Mapping[int, Mapping[str, tuple[tuple[str, str], ...]]] = {
    1: {
        "memory": (("memory.limit_in_bytes", "{memory}"), ("memory.memsw.limit_in_bytes", "{memory}")),
        "pids": (("pids.max", "{processes}"),),
        "cpu": (("cpu.cfs_period_us", "{period}"), ("cpu.cfs_quota_us", "{quota}")),
        "cpuacct": (("cpuacct.usage", "0"),),
    },
    2: {
        "memory": (("memory.max", "{memory}"), ("memory.swap.max", "0"), ("memory.oom.group", "1")),
        "pids": (("pids.max", "{processes}"),),
        "cpu": (("cpu.max", "{quota} {period}"),),
    },
}
_OOM_EVENTS = {1: "memory.oom_control", 2: "memory.events"}


class Cgroup:
    """A group for one job; its memory is limited, its cpus and processes where the kernel lets us.

    Args:
        version: Of the kernel's interface.
        folders: The folder of the group, by controller.
    """

    def __init__(self, version: int, folders: Mapping[str, Path]) -> None:
        self._version = version
        self._folders = dict(folders)
        self._refused_by_us = 0

    @classmethod
    def create(cls, name: str, *, memory: int, cpus: int, processes: int) -> Cgroup | None:
        """Make a group with limits, or take one of that name that is there; None where memory cannot be limited.

        Args:
            name: Of its own among all jobs of the machine.
            memory: MB.
            cpus: How many cpus' time.
            processes: How many processes and threads at a time.
        """
        values = {
            "memory": memory * _MEGABYTE,
            "processes": processes,
            "period": _PERIOD,
            "quota": cpus * _PERIOD,
        }
        for version, make in ((2, _make_2), (1, _make_1)):
            folders = make(name, values)
            if "memory" in folders:
                return cls(version, folders)
            cls(version, folders).remove()
        return None

    @classmethod
    def available(cls) -> bool:
        """Whether groups can be made here."""
        group = cls.create(f"airflow-training-{os.getpid()}", memory=1024, cpus=1, processes=1)
        if group:
            group.remove()
        return group is not None

    @classmethod
    def find(cls, name: str) -> Cgroup | None:
        """The group of that name, if there is one."""
        for version in (2, 1):
            folders = {
                controller: folder
                for controller in _FILES[version]
                for parent in parents(version, controller)
                if (folder := parent / name).is_dir()
            }
            if folders:
                return cls(version, folders)
        return None

    def join(self) -> None:
        """Put this process into the group, with all that it starts from now on."""
        for folder in set(self._folders.values()):
            (folder / "cgroup.procs").write_text("0")

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel had to end a process of the group for want of memory."""
        return number_in(self._folders["memory"] / _OOM_EVENTS[self._version], "oom_kill") > 0

    @property
    def ran_out_of_processes(self) -> bool:
        """Whether a process of the group could not be started for want of room."""
        return self._refused() > self._refused_by_us

    def used(self) -> Used | None:
        """What the group has used so far; None where the kernel does not count it."""
        memory = self._folders["memory"]
        try:
            if self._version == 1:
                seconds = int((self._folders["cpuacct"] / "cpuacct.usage").read_text()) / 10**9
                taken = int((memory / "memory.usage_in_bytes").read_text())
            else:
                seconds = number_in(memory / "cpu.stat", "usage_usec") / 10**6
                taken = int((memory / "memory.current").read_text())
        except (OSError, KeyError):
            return None
        # As `docker stats` counts it: the kernel gives these up where memory is short.
        files = number_in(memory / "memory.stat", INACTIVE_FILES[self._version])
        return Used(seconds, max(0, taken - files) / _MEGABYTE)

    def kill(self) -> None:
        """End every process of the group by force, before it can start another."""
        with self._closed():
            for process in self.processes():
                # One that runs as another user now is not ours to end.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)

    @contextlib.contextmanager
    def _closed(self) -> Iterator[None]:
        """Let no process start another meanwhile, where the kernel limits them."""
        if "pids" not in self._folders:
            yield
            return
        most = self._folders["pids"] / "pids.max"
        before = ""
        refused = self._refused()
        with contextlib.suppress(OSError):  # the controller was taken from the group
            before = most.read_text()
            most.write_text("0")
        try:
            yield
        finally:
            if before:
                with contextlib.suppress(OSError):
                    most.write_text(before)
            # That is no fault of the job.
            self._refused_by_us += self._refused() - refused

    def _refused(self) -> int:
        """How often a process of the group could not be started."""
        return number_in(self._folders["pids"] / "pids.events", "max") if "pids" in self._folders else 0

    def processes(self) -> set[int]:
        """The ids of all processes in the group, and in the groups that the job made in it."""
        found: set[int] = set()
        for folder in set(self._folders.values()):
            for inner, _, _ in os.walk(folder):
                with contextlib.suppress(OSError):
                    found.update(map(int, Path(inner, "cgroup.procs").read_text().split()))
        return found

    def remove(self, patience: float = 2.0) -> None:
        """Remove the group; waits up to `patience` seconds for the end of processes that were ended just now."""
        give_up = time.monotonic() + patience
        for folder in set(self._folders.values()):
            while not _removed(folder) and time.monotonic() < give_up:
                time.sleep(0.02)


def _removed(folder: Path) -> bool:
    """Remove a group, and those in it; False where a process is still in one."""
    try:
        for inner, _, _ in os.walk(folder, topdown=False):
            Path(inner).rmdir()
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def _make_2(name: str, values: Mapping[str, int]) -> dict[str, Path]:
    """Make a group of version 2: one folder for every controller."""
    for parent in parents(2, "memory"):
        # The first file is what it takes the right to write to move a process from our own group into the new one.
        # Memory comes first: it is refused below a group that has processes of its own. The other two are not, but
        # then no process may enter the groups below ("domain invalid"), so they must not be asked for there.
        if not os.access(parent / "cgroup.procs", os.W_OK) or not _enabled(parent, "memory"):
            continue
        for controller in _FILES[2]:
            _enabled(parent, controller)
        folder = parent / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            continue
        limited = [controller for controller in _FILES[2] if _limited(2, controller, folder, values)]
        if "memory" in limited:
            return dict.fromkeys(limited, folder)
        _removed(folder)
    return {}


def _make_1(name: str, values: Mapping[str, int]) -> dict[str, Path]:
    """Make a group of version 1: a folder for each controller, in a tree of its own."""
    folders: dict[str, Path] = {}
    for controller in _FILES[1]:
        for parent in parents(1, controller):
            folder = parent / name
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                if _limited(1, controller, folder, values):
                    folders[controller] = folder
                elif folder not in folders.values():
                    folder.rmdir()
    return folders


def _enabled(parent: Path, controller: str) -> bool:
    """Let the groups below one of version 2 have a controller; in a delegated group nobody else has done so."""
    file = parent / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        file.write_text(f"+{controller}")
    return controller in " ".join(lines_of(file)).split()


def _limited(version: int, controller: str, folder: Path, values: Mapping[str, int]) -> bool:
    """Write the limits of a controller; False where the group does not have it."""
    (first, limit), *others = _FILES[version][controller]
    if not (folder / first).exists():
        return False
    try:
        (folder / first).write_text(limit.format(**values))
    except OSError:
        return False
    for file, text in others:
        # Some kernels have no swap to limit.
        with contextlib.suppress(OSError):
            (folder / file).write_text(text.format(**values))
    return True
