"""A Linux control group for one job: limits its memory, CPUs and processes, and ends all of them.

Both versions of the kernel's interface are supported, if a group can be created below the group of this process or,
with version 2, beside it: that takes root or a delegated group. Else `Cgroup.create` returns None.

Source: cgroups(7); the kernel's documents on cgroup v1 (memory, pids, cpu) and cgroup v2.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from airflow_training.service.runners.supervisor.usage import Used

_MEGABYTE = 1024 * 1024
_PERIOD = 100_000  # microseconds, in which a group may use its CPUs

# The files of each controller, and what is written to them; the first one must exist.
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

INACTIVE_FILES = {2: "inactive_file", 1: "total_inactive_file"}
"""The file caches that were not used lately, in `memory.stat` of each version."""

_MOUNTS = Path("/proc/self/mounts")


class Cgroup:
    """A group for one job: memory is always limited, CPUs and processes if the kernel has these controllers.

    Args:
        version: The version of the kernel's interface.
        folders: The folder of the group, by controller.
    """

    def __init__(self, version: int, folders: Mapping[str, Path]) -> None:
        self._version = version
        self._folders = dict(folders)
        self._refused_by_us = 0

    @classmethod
    def create(cls, name: str, *, memory: int, cpus: int, processes: int) -> Cgroup | None:
        """Create a group with limits, or reuse the one of that name; None if memory cannot be limited.

        Args:
            name: Its name, unique on the machine.
            memory: MB.
            cpus: CPUs.
            processes: Processes and threads at a time.
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
        """Whether groups can be created here."""
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
                for parent in _parents(version, controller)
                if (folder := parent / name).is_dir()
            }
            if folders:
                return cls(version, folders)
        return None

    def join(self) -> None:
        """Move this process into the group, with all that it starts from now on."""
        for folder in set(self._folders.values()):
            (folder / "cgroup.procs").write_text("0")

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended a process of the group since it was out of memory."""
        return number_in(self._folders["memory"] / _OOM_EVENTS[self._version], "oom_kill") > 0

    @property
    def ran_out_of_processes(self) -> bool:
        """Whether a process of the group could not be started."""
        return self._refused() > self._refused_by_us

    def used(self) -> Used | None:
        """What the group has used so far; None if the kernel does not count it."""
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
        # As `docker stats` counts it: the kernel drops these when memory is short.
        files = number_in(memory / "memory.stat", INACTIVE_FILES[self._version])
        return Used(seconds, max(0, taken - files) / _MEGABYTE)

    def kill(self) -> None:
        """End every process of the group by force, before it can start another."""
        with self._closed():
            for process in self.processes():
                # One that runs as another user now cannot be ended.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)

    @contextlib.contextmanager
    def _closed(self) -> Iterator[None]:
        """Let no process start another meanwhile, if the kernel limits them."""
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
            # These do not count against the job.
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
        """Remove the group; waits up to `patience` seconds for processes that were killed just now."""
        give_up = time.monotonic() + patience
        for folder in set(self._folders.values()):
            while not _removed(folder) and time.monotonic() < give_up:
                time.sleep(0.02)


def _removed(folder: Path) -> bool:
    """Remove a group and its subgroups; False if a process is still in one."""
    try:
        for inner, _, _ in os.walk(folder, topdown=False):
            Path(inner).rmdir()
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def _make_2(name: str, values: Mapping[str, int]) -> dict[str, Path]:
    """Create a group of version 2: one folder for all controllers."""
    for parent in _parents(2, "memory"):
        # To move a process from our own group into the new one, the first file must be writable.
        # Memory comes first: it is refused below a group that has processes of its own. The other two are not, but
        # then no process may enter the groups below ("domain invalid"): they must not be enabled there.
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
    """Create a group of version 1: a folder for each controller, each in its own tree."""
    folders: dict[str, Path] = {}
    for controller in _FILES[1]:
        for parent in _parents(1, controller):
            folder = parent / name
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                if _limited(1, controller, folder, values):
                    folders[controller] = folder
                elif folder not in folders.values():
                    folder.rmdir()
    return folders


def _enabled(parent: Path, controller: str) -> bool:
    """Enable a controller for the groups below one of version 2; a delegated group may not have it enabled."""
    file = parent / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        file.write_text(f"+{controller}")
    return controller in " ".join(lines_of(file)).split()


def _limited(version: int, controller: str, folder: Path, values: Mapping[str, int]) -> bool:
    """Write the limits of a controller; False if the group does not have it."""
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


def _parents(version: int, controller: str) -> list[Path]:
    """The groups below which a group for a job may be created, the best one first."""
    mount = _mount(version, controller)
    own = _path(version, controller, "self")
    if mount is None or own is None:
        return []
    group = mount / own
    # Version 2 has no processes in a group with groups below it: the parent of our own group may do.
    return [group, group.parent] if version == 2 and own.parts else [group]


def group_of(process: int, version: int, controller: str) -> Path | None:
    """The folder of the group of a process; None if unknown."""
    mount = _mount(version, controller)
    path = _path(version, controller, str(process))
    return mount / path if mount and path else None


def _mount(version: int, controller: str) -> Path | None:
    for line in lines_of(_MOUNTS):
        _, folder, kind, options, *_ = line.split()
        if version == 2 and kind == "cgroup2":
            return Path(folder)
        if version == 1 and kind == "cgroup" and controller in options.split(","):
            return Path(folder)
    return None


def _path(version: int, controller: str, process: str) -> Path | None:
    for line in lines_of(Path("/proc", process, "cgroup")):
        _, controllers, path = line.split(":", 2)
        if (version == 2 and not controllers) or (version == 1 and controller in controllers.split(",")):
            return Path(path.lstrip("/"))
    return None


def lines_of(file: Path) -> list[str]:
    """The lines of a file; none if it cannot be read."""
    try:
        return file.read_text().splitlines()
    except OSError:  # not Linux
        return []


def number_in(file: Path, name: str) -> int:
    """The number after a name in a file of a group; 0 if there is none."""
    for line in lines_of(file):
        word, _, number = line.partition(" ")
        if word == name:
            return int(number)
    return 0
