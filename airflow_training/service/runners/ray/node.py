"""The program on a node of Ray: `python -m …` in the working directory from the helper, with the job in `job.json`.

It runs the job as a process, as the service does on its own machine: it copies the files from S3, creates the Python
environment, runs the command within its limits, and copies the files back in any case.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from airflow_training.exceptions import coded
from airflow_training.service.runners.process.backend import ProcessBackend
from airflow_training.service.runners.ray.frames import FrameWriter
from airflow_training.service.runners.run_folder import Spec
from airflow_training.service.runners.supervisor.backend import BackendFailed
from airflow_training.service.runners.supervisor.environment import clean_environment
from airflow_training.service.runners.supervisor.process_tree import Ended, ProcessTree, adopt_orphans, end_with
from airflow_training.service.runners.supervisor.secret_masks import Masks
from airflow_training.service.runners.supervisor.time_and_disk_limits import Limiter
from airflow_training.service.runners.supervisor.usage import Sampler
from airflow_training.service.runners.supervisor.working_copy import remove_tree

JOB = "job.json"
STORE = "store.json"


class _NodeJob:
    """Runs the job.

    Args:
        spec: The job.
        state: A new folder.
    """

    def __init__(self, spec: Spec, state: Path) -> None:
        self._frames = FrameWriter(_write, spec.limits.log, Masks(spec.masks))
        self._backend = ProcessBackend(state, spec)
        sampler = Sampler(self._frames.sample, spec.gpus)
        self._tree = ProcessTree(self._frames, self._backend.grace, sampler)

    def run(self) -> int:
        """Run the job to its end, and return the exit status for Ray."""
        adopt_orphans()
        limiter = self._backend.limiter()
        try:
            ended = self._run(limiter)
        except BackendFailed as error:
            self._frames.event(failed=str(error))
            return 1
        except (OSError, subprocess.SubprocessError) as error:
            self._frames.event(failed=coded(f"the command could not be started: {error}", code="AT-457"))
            return 1
        finally:
            limiter.close()
        # Ray signals all processes at once, so the command may end before this process handles the signal.
        stopped = ended.stopped or (self._tree.stopping and ended.status != 0)
        self._frames.event(ended={"status": ended.status, "stopped": stopped, "exceeded": ended.exceeded})
        not_copied: list[str] = []
        self._backend.close(not_copied.append)
        if not_copied:
            self._frames.event(not_copied="\n".join(dict.fromkeys(not_copied)))
        return 1 if ended.status or ended.stopped or ended.exceeded or not_copied else 0

    def abandon(self) -> None:
        """End a job that Ray lost: later output would mix with the files of the next attempt."""
        self._backend.clean()

    def _run(self, limiter: Limiter) -> Ended:
        ended = self._backend.prepare(partial(self._tree.run_unless_stopping, limiter=limiter), self._frames.emit)
        if ended:
            return ended
        if self._tree.stopping:
            return Ended(0, stopped=True)
        self._frames.event(running=True)
        limiter.start_clock()
        return self._tree.run_unless_stopping(self._backend.program(), limiter)


def _write(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


def _run_job() -> int:
    spec = Spec.from_json(Path(JOB).read_bytes())
    state = Path(tempfile.mkdtemp(prefix="airflow-training-"))
    # Ray keeps the folder for a while, and both files contain secrets.
    Path(JOB).unlink()
    store = shutil.move(STORE, state / STORE)
    # Ray selects the GPUs; the service allocated only their number.
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if spec.gpus else []
    spec = replace(spec, gpus=gpus, files={**spec.files, "store": str(store)})
    cleaned = clean_environment(os.environ)
    os.environ.clear()
    os.environ.update(cleaned)
    job = _NodeJob(spec, state)

    def abandon(*_: object) -> None:
        job.abandon()
        remove_tree(state)
        os._exit(1)

    signal.signal(signal.SIGHUP, abandon)
    try:
        return job.run()
    finally:
        remove_tree(state)


def _entrypoint() -> int:
    """Run the job in a child process in its own session, which ends the job if Ray kills the entrypoint.

    Ray kills only the process group of the entrypoint, and a job creates other groups.
    """
    # Ray signals the processes of the job itself.
    signal.signal(signal.SIGTERM, lambda *_: None)
    command = [sys.executable, "-m", __spec__.name, "work"]
    on_parent_death = partial(end_with, os.getpid(), signal.SIGHUP)
    return abs(subprocess.run(command, start_new_session=True, preexec_fn=on_parent_death, check=False).returncode)


if __name__ == "__main__":
    sys.exit(_run_job() if sys.argv[1:] else _entrypoint())
