"""What the container of a job has in the job's run folder."""

from __future__ import annotations

import os
from pathlib import Path

WORK, HOME, TEMPORARY = "data", "home", "tmp"
_CREATED = "container.created"


def container_folder(state: Path) -> Path:
    """All that the container can write to on this machine's disk."""
    return state / "container"


def work_folder(state: Path) -> Path:
    """The copy of the job's files that the container works on."""
    return container_folder(state) / WORK


def create_folders(state: Path, owner: int) -> None:
    """Create the folders that the container writes to."""
    for name in (WORK, HOME, TEMPORARY):
        folder = container_folder(state) / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(folder, owner, owner)


def may_exist(state: Path) -> bool:
    """Whether a container may exist."""
    return (state / _CREATED).exists()


def mark_created(state: Path) -> None:
    """Record that a container may exist from now on."""
    (state / _CREATED).touch()
