"""Simulated running jobs of a training service, each of which prints a line a second, or less often.

A thousand trainings do not fit on a small machine, and only their followers are measured. So the jobs are simulated
below the service: rows in its table as the scheduler leaves them, and run folders as supervisors leave them. One
process holds all the locks of supervisors, and writes the logs with their code. Everything above is real: the scheduler
checks each job, and status and log are served as usual.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import insert

from airflow_training.api.status import JobState
from airflow_training.local.service import LocalService
from airflow_training.service.database.models import Job, now, open_database
from airflow_training.service.runners.run_folder import Started, SupervisorRecord, boot_id, try_lock
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.settings import DataFolder

TENANT = "benchmark"
LINE = "step "
"""The beginning of each line."""

_DESCRIPTION = '{"name": "train", "execution": {"command": "python3 train.py", "completionTime": "20h"}}'
_LARGEST_LOG = 1024**3


def job_id(index: int) -> str:
    """The id of one of the jobs."""
    return f"job-{index}"


@contextmanager
def running_jobs(folder: Path, number: int, every: float = 1) -> Iterator[LocalService]:
    """Run a service with running jobs, each of which writes a line every so many seconds."""
    # Three files for each job; the triggerer, which inherits this limit, has a task log open for each.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    service = LocalService(folder)
    data = DataFolder.at(service.data)
    _fill_table(data, number)
    # It has the data folder in its arguments, and so is terminated with the service.
    command = [sys.executable, "-m", "benchmarks.parts.running_jobs", str(data.root), str(number), str(every)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            if not (writer.stdout and writer.stdout.readline()):
                raise RuntimeError("The process that writes the logs did not start.")
            with service.running():
                yield service
        finally:
            writer.kill()


def _fill_table(data: DataFolder, number: int) -> None:
    common = {"tenant": TENANT, "name": "train", "description": _DESCRIPTION, "cpus": 1, "memory": 1, "gpus": 0}
    running = {**common, "state": JobState.RUNNING, "claimed": True, "started": now()}
    sessions = open_database(data.database_url)
    with sessions.begin() as session:
        session.execute(insert(Job), [{**running, "id": job_id(index)} for index in range(number)])
    sessions.kw["bind"].dispose()


def write(root: Path, number: int, every: float) -> None:
    """Hold the locks of all jobs and write their lines, evenly distributed over time; never returns."""
    data = DataFolder.at(root)
    with ExitStack() as locks:
        logs = []
        for index in range(number):
            state = data.job_state(TENANT, job_id(index))
            state.mkdir(mode=0o700, parents=True)
            locks.enter_context(try_lock(state))
            SupervisorRecord(pid=0, number=1, attempt=1, boot_id=boot_id(), at=time.time()).write(state)
            Started(f"made-up-{index}", now(), attempt=1).write(state)
            logs.append(JobLog(state, _LARGEST_LOG))
        print("ready", flush=True)
        began, step = time.monotonic(), 0
        while True:
            for index, log in enumerate(logs):
                due = began + (step + index / number) * every
                if (early := due - time.monotonic()) > 0:
                    time.sleep(early)
                log.write(f"{LINE}{step} of 100000, 0.31 s a step\n".encode())
            step += 1


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
