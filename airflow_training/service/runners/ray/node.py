"""What runs on a node of Ray: `python -m …` in the folder that the service packed, with the job in `job.json`.

The job runs as it does on the service's own machine: files are fetched from S3, an environment is made, the command
runs within its limits, and what it wrote is brought back, whatever became of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from airflow_training.exceptions import coded
from airflow_training.service.durable_files import read_json, write_json
from airflow_training.service.runners.process.backend import ProcessPlace
from airflow_training.service.runners.process.process_tree import Ended, ProcessTree, adopt_orphans, end_with
from airflow_training.service.runners.ray.frames import FrameWriter
from airflow_training.service.runners.supervisor.backend import PlaceFailed, Program
from airflow_training.service.runners.supervisor.environment import clean_environment
from airflow_training.service.runners.supervisor.limits import Watch
from airflow_training.service.runners.supervisor.secret_masks import Masks
from airflow_training.service.runners.supervisor.staging import remove_tree
from airflow_training.service.runners.supervisor.usage import Sampler

JOB = "job.json"


class _Courier:
    """Runs the job.

    Args:
        job: What the service packed.
        state: A folder of its own.
    """

    def __init__(self, job: dict[str, Any], state: Path) -> None:
        self._frames = FrameWriter(_write, job["limits"]["log"], Masks(job["masks"]))
        write_json(state / "store.json", job["store"])
        files = {"store": str(state / "store.json"), "prefix": job["prefix"]}
        self._place = ProcessPlace(state, {**job, "files": files})
        sampler = Sampler(self._frames.sample, job["gpus"])
        self._tree = ProcessTree(self._frames, self._place.grace, sampler)

    def run(self) -> int:
        """Run it to its end; returns the exit status that Ray is to show."""
        adopt_orphans()
        watch = self._place.watch()
        try:
            ended = self._run(watch)
        except PlaceFailed as error:
            self._frames.tell(failed=str(error))
            return 1
        except (OSError, subprocess.SubprocessError) as error:
            self._frames.tell(failed=coded(f"the command could not be started: {error}", code="AT-457"))
            return 1
        finally:
            watch.close()
        # Ray tells every process at once, and the command may be quicker to end than we are to notice.
        stopped = ended.stopped or (self._tree.stopping and ended.status != 0)
        self._frames.tell(ended={"status": ended.status, "stopped": stopped, "overstepped": ended.overstepped})
        left: list[str] = []
        self._place.close(left.append)
        if left:
            self._frames.tell(left="\n".join(dict.fromkeys(left)))
        return 1 if ended.status or ended.stopped or ended.overstepped or left else 0

    def abandon(self) -> None:
        """End the job, which Ray has lost: what it writes from now on would come between another attempt's files."""
        self._place.clean()

    def _run(self, watch: Watch) -> Ended:
        ended = self._place.prepare(lambda program: self._do(program, watch), self._frames.say)
        if ended:
            return ended
        if self._tree.stopping:
            return Ended(0, stopped=True)
        self._frames.tell(running=True)
        watch.start_the_clock()
        return self._do(self._place.program(), watch)

    def _do(self, program: Program, watch: Watch) -> Ended:
        if self._tree.stopping:
            return Ended(0, stopped=True)
        return self._tree.run(program.command, program.folder, program.environment, watch)


def _write(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


def _work() -> int:
    job = read_json(Path(JOB)) or {}
    # Ray keeps the folder for a while, and this has keys in it.
    Path(JOB).unlink()
    # Which ones is for Ray to say, of as many as the job was promised.
    job["gpus"] = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if job["gpus"] else []
    cleaned = clean_environment(os.environ)
    os.environ.clear()
    os.environ.update(cleaned)
    state = Path(tempfile.mkdtemp(prefix="airflow-training-"))
    courier = _Courier(job, state)

    def abandon(*_: object) -> None:
        courier.abandon()
        remove_tree(state)
        os._exit(1)

    signal.signal(signal.SIGHUP, abandon)
    try:
        return courier.run()
    finally:
        remove_tree(state)


def _entrypoint() -> int:
    """Start the courier, which outlives us by a moment: when Ray ends us by force, it is to end the job.

    Ray ends only what is in the process group of the entrypoint, and a job makes groups of its own.
    """
    # Ray tells each process of the job itself.
    signal.signal(signal.SIGTERM, lambda *_: None)
    command = [sys.executable, "-m", __spec__.name, "work"]
    told = partial(end_with, os.getpid(), signal.SIGHUP)
    return abs(subprocess.run(command, start_new_session=True, preexec_fn=told, check=False).returncode)


if __name__ == "__main__":
    sys.exit(_work() if sys.argv[1:] else _entrypoint())
