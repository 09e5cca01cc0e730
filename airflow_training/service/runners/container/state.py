"""What the container of a job has in the job's state folder."""

from __future__ import annotations

import os
from pathlib import Path

WORK, HOME, TEMPORARY = "data", "home", "tmp"
_MADE = "container.made"


def folder_of(state: Path) -> Path:
    """All that the container of a job can write to of this machine's disk."""
    return state / "container"


def make_folder(state: Path, owner: int) -> None:
    """Make the folders that the container of a job writes to."""
    for name in (WORK, HOME, TEMPORARY):
        folder = folder_of(state) / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(folder, owner, owner)


def was_made(state: Path) -> bool:
    """Whether there may be a container."""
    return (state / _MADE).exists()


def note_made(state: Path) -> None:
    """Note that there may be a container from now on."""
    (state / _MADE).touch()
