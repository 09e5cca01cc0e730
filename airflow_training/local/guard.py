"""Ends the processes that a process started, however that process ends.

A `with` block cleans up after an exception, but not after SIGTERM, SIGKILL or a second Ctrl+C. Then another process has
to, in a session of its own, which these signals do not reach.
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

from airflow_training.local.process import end_processes_in

# A process that is being terminated may start another one.
_ROUNDS = 5
_FOLDER = "GUARDED_FOLDER"
# Seconds between two checks whether the process still runs.
_INTERVAL = 0.2


def guard(folder: Path, *, remove: bool = True) -> None:
    """Terminate all processes of a folder once this process has ended.

    Args:
        folder: All processes that `processes_in` finds there are terminated.
        remove: Whether the folder is removed afterwards.
    """
    # By a variable of its own, so that the guard does not find itself among the processes of the folder.
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"} | {_FOLDER: str(folder)}
    guardian = subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid()), *(["--remove"] if remove else [])],
        env=environment,
        stdin=subprocess.DEVNULL,
        # A program that reads our output to the end must not wait for the guard.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # The guard outlives this process; otherwise Python warns about that.
    guardian.returncode = 0


@contextmanager
def guarded_folder(prefix: str) -> Iterator[Path]:
    """Make a guarded temporary folder, and remove it at the end of the block."""
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        guard(Path(folder))
        yield Path(folder)


def _wait_and_terminate(owner: int, folder: Path, *, remove: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(owner)
        # Not `wait`: a process that has ended is a zombie until its parent has read its status.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_INTERVAL)
    for _ in range(_ROUNDS):
        if not end_processes_in(folder):
            break
    if remove:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _wait_and_terminate(int(sys.argv[1]), Path(os.environ[_FOLDER]), remove="--remove" in sys.argv)
