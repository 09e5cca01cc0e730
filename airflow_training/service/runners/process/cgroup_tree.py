"""Where the kernel shows control groups: the folders of both versions of its interface. Source: cgroups(7)."""

from __future__ import annotations

from pathlib import Path

INACTIVE_FILES = {2: "inactive_file", 1: "total_inactive_file"}
"""What the kernel keeps of files that were not used of late, as `memory.stat` calls it in each version."""

_MOUNTS = Path("/proc/self/mounts")


def parents(version: int, controller: str) -> list[Path]:
    """The groups below which a group for a job may be made, the best one first."""
    mount = _mount(version, controller)
    own = _path(version, controller, "self")
    if mount is None or own is None:
        return []
    group = mount / own
    # Version 2 has no processes in a group with groups below it: beside our own group there may be room.
    return [group, group.parent] if version == 2 and own.parts else [group]


def group_of(process: int, version: int, controller: str) -> Path | None:
    """The folder of the group that a process is in; None where nobody can tell."""
    mount = _mount(version, controller)
    path = _path(version, controller, str(process))
    return mount / path if mount and path else None


def _mount(version: int, controller: str) -> Path | None:
    for line in lines_of(_MOUNTS):
        _, place, kind, options, *_ = line.split()
        if version == 2 and kind == "cgroup2":
            return Path(place)
        if version == 1 and kind == "cgroup" and controller in options.split(","):
            return Path(place)
    return None


def _path(version: int, controller: str, process: str) -> Path | None:
    for line in lines_of(Path("/proc", process, "cgroup")):
        _, controllers, path = line.split(":", 2)
        if (version == 2 and not controllers) or (version == 1 and controller in controllers.split(",")):
            return Path(path.lstrip("/"))
    return None


def lines_of(file: Path) -> list[str]:
    """The lines of a file; none where it cannot be read."""
    try:
        return file.read_text().splitlines()
    except OSError:  # no Linux
        return []


def number_in(file: Path, name: str) -> int:
    """The number behind a name in a file of a group; 0 where there is none."""
    for line in lines_of(file):
        word, _, number = line.partition(" ")
        if word == name:
            return int(number)
    return 0
