"""The copy of a job's files that it works on, and what it wrote brought back to the bucket.

A job must not write to a folder that the service or its S3 endpoint uses: a symbolic link there would lead them out of
the bucket, and the credentials of one tenant into the bucket of another. What it wrote is copied back after its
last process has ended, and only regular files: no links, devices or pipes. See copy_in_and_back.py for which ones.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow_training.service.runners.run_folder import JOB_VARIABLE
from airflow_training.service.runners.supervisor.backend import BackendFailed
from airflow_training.service.runners.supervisor.helper import helper_program, run_uninterrupted
from airflow_training.service.runners.supervisor.process_tree import Ended, Program

# Named and not imported: a supervisor, of which each job has one, has no use for an S3 client.
_HELPER = "airflow_training.service.runners.supervisor.copy_in_and_back"

# Seconds between two tries to copy back what a job wrote.
_PAUSE = 5.0


class WorkingCopy:
    """The copy of a job's files.

    Args:
        files: Where they are in the bucket, as in the `Spec`.
        work: The folder that the job works in.
        state: The run folder of the job.
        owner: The user id that the job runs as.
        most: MB that may be copied back.
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
        """Copy the files to where the job works; returns how that ended if it was stopped or exceeded a limit.

        Raises:
            BackendFailed: They cannot be copied.
        """
        self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
        ended = run(self._helper("fetch"))
        if ended.exceeded or ended.stopped:
            return ended
        if ended.status:
            raise BackendFailed(
                "the job's files could not be copied from the bucket; the reason is in the log", code="AT-458"
            )
        return None

    def send(self, emit: Callable[[str], None]) -> None:
        """Copy back what the job wrote, however long the disk is full or the store unavailable."""
        emitted = ""
        while not (sent := run_uninterrupted(self._helper("send"))).ok:
            if sent.output != emitted:
                emit(f"The job's files cannot be copied to the bucket yet; the service retries. {sent.output}")
            emitted = sent.output
            time.sleep(_PAUSE)
        if sent.output:
            emit(sent.output)

    def _helper(self, step: str) -> Program:
        return helper_program(_HELPER, step, json.dumps(self._facts), **{JOB_VARIABLE: self._facts["state"]})


def remove_tree(folder: Path) -> None:
    """Remove a folder of any depth: `shutil.rmtree` fails at some depth, and would end the supervisor."""
    subprocess.run(["rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
