"""Ends what a process started, however that process ended.

A `with` block cleans up after an exception. After SIGTERM, SIGKILL or a second Ctrl+C nothing of a process runs any
more: another one has to, in a session of its own, out of reach of what ended the first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from airflow_training.local.process import end_all_in

# A process that is being ended may start another.
_ROUNDS = 5
_FOLDER = "GUARDED_FOLDER"
# Seconds between two looks whether the process is still there.
_INTERVAL = 0.2


def guard(folder: Path, *, remove: bool = True) -> None:
    """When this process has ended, end every process of a folder.

    Args:
        folder: All processes that `processes_in` finds there are ended.
        remove: Whether the folder is removed afterwards.
    """
    # In a variable of its own, by which it is not found itself when all processes of the folder are ended.
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"} | {_FOLDER: str(folder)}
    guardian = subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid()), *(["--remove"] if remove else [])],
        env=environment,
        stdin=subprocess.DEVNULL,
        # A program that reads our output to its end does not wait for the guard.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # It outlives this process, which Python would otherwise warn of.
    guardian.returncode = 0


@contextmanager
def guarded_folder(prefix: str) -> Iterator[Path]:
    """Make a temporary folder that is guarded, and remove it at the end of the block."""
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        guard(Path(folder))
        yield Path(folder)


def _wait_and_end(owner: int, folder: Path, *, remove: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(owner)
        # Not `wait`: one that has ended is still there while its parent has not asked for its status.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_INTERVAL)
    for _ in range(_ROUNDS):
        if not end_all_in(folder):
            break
    if remove:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _wait_and_end(int(sys.argv[1]), Path(os.environ[_FOLDER]), remove="--remove" in sys.argv)
