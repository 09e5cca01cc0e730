"""A job's files, brought from its folder in the bucket to where it works on a copy, and what it wrote brought back.

A job must not write where the service, or its S3 endpoint, reads and writes: a symbolic link there would lead them
out of the bucket, and the keys of one tenant into that of another. What it wrote is looked at when none of it runs any
more, and only files come back: no links, no devices, no pipes. Where the bucket is in an S3 store elsewhere, there is
no other way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from airflow_training.service.runners.process.process_tree import Ended, end_with
from airflow_training.service.runners.run_folder import JOB_VARIABLE
from airflow_training.service.runners.supervisor.backend import PlaceFailed, Program

# Named and not imported: a supervisor, of which each job has one, needs none of what the program needs.
_STAGED_FILES = "airflow_training.service.runners.supervisor.staged_files"

# So long is waited before what a job wrote is brought back once more.
_PAUSE = 5.0


class Staging:
    """The copy of a job's files.

    Args:
        files: Where they are in the bucket, as `Buckets.files` says it.
        work: The folder that the job works in.
        state: The state folder of the job.
        owner: The user that the job runs as.
        most: MB that may come back.
    """

    def __init__(self, files: Mapping[str, str], work: Path, state: Path, *, owner: int, most: int) -> None:
        self._work = work
        self._facts: dict[str, Any] = {
            "files": files,
            "work": str(work),
            "state": str(state),
            "owner": owner,
            "most": most,
        }

    def fetch(self, run: Callable[[Program], Ended]) -> Ended | None:
        """Copy the files to where the job works; returns how that ended, where it was to stop or took too much.

        Raises:
            PlaceFailed: They cannot be copied.
        """
        self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
        ended = run(self._copy("fetch"))
        if ended.overstepped or ended.stopped:
            return ended
        if ended.status:
            raise PlaceFailed("the job's files could not be copied from the bucket; the log tells why", code="AT-458")
        return None

    def send(self, say: Callable[[str], None]) -> None:
        """Bring back what the job wrote, however long the disk is full or the store away."""
        said = ""
        while not (sent := run_undisturbed(self._copy("send"))).ok:
            if sent.output != said:
                say(f"What the job wrote is not in the bucket yet, which is tried again. {sent.output}")
            said = sent.output
            time.sleep(_PAUSE)
        if sent.output:
            say(sent.output)

    def remove(self) -> None:
        """Remove the copy."""
        remove_tree(self._work)

    def _copy(self, step: str) -> Program:
        return python_program(_STAGED_FILES, step, json.dumps(self._facts), **{JOB_VARIABLE: self._facts["state"]})


@dataclass(frozen=True)
class Done:
    """How a program ended that nobody could interrupt."""

    ok: bool
    output: str


def python_program(module: str, *arguments: str, **variables: str) -> Program:
    """A module of this package as a program."""
    return Program([sys.executable, "-m", module, *arguments], Path.cwd(), {**os.environ, **variables})


def remove_tree(folder: Path) -> None:
    """Remove a folder, however deep: Python's own way ends at some depth, and would take the supervisor with it."""
    subprocess.run(["rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)


def run_undisturbed(program: Program) -> Done:
    """Run a program to its end, though the job is to stop."""
    done = subprocess.run(
        program.command,
        cwd=program.folder,
        env=program.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        preexec_fn=partial(end_with, os.getpid()),
    )
    return Done(done.returncode == 0, done.stdout.strip())
