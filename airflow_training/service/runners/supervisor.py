"""The process that holds one job, whatever becomes of the service: `python -m … <state folder of the job>`.

The state folder is all that it shares with the service:

```
spec.json        what is to be run, written by the service
lock             held locked for as long as the supervisor lives
supervisor.json  its process id, the attempt that it makes, and the boot of the machine: no other makes this attempt
started.json     when the command started, its process id and when that was created
cancel           written by the service: the next SIGTERM is the wish of the tenant
log.txt, log.ndjson
exit.json        how it ended, written when the log is complete
```
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
from uv import find_uv_bin

from airflow_training.service.files import read_json, write_json
from airflow_training.service.runners.environment import (
    create_commands,
    install_command,
    job_environment,
)
from airflow_training.service.runners.job_log import JobLog
from airflow_training.service.runners.limits import JobLimits, Watch
from airflow_training.service.runners.process_tree import Ended, ProcessTree, adopt_orphans

SPECIFICATION = "spec.json"
LOCK = "lock"
SUPERVISOR = "supervisor.json"
STARTED = "started.json"
CANCEL = "cancel"
EXIT = "exit.json"
PYTHON = "env"

JOB_VARIABLE = "AIRFLOW_TRAINING_JOB"
"""Every process of a job has this variable, its state folder: so it is found where a supervisor was killed."""

# Between SIGTERM and SIGKILL.
_GRACE = 5.0
_REQUIREMENTS = "requirements.txt"
# Seconds before a job is run again: doubled with each attempt, up to a minute.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


def main(folder: Path) -> None:
    """Run the job of a state folder, unless another supervisor has made this attempt or is making it."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        specification: dict[str, Any] = read_json(folder / SPECIFICATION) or {}
        made = read_json(folder / SUPERVISOR)
        if not (folder / EXIT).exists() and (not made or made["attempt"] < specification["attempt"]):
            Supervisor(folder, specification).run()


class Supervisor:
    """Runs one job.

    Args:
        folder: Its state folder.
        specification: What is to be run.
    """

    def __init__(self, folder: Path, specification: dict[str, Any]) -> None:
        self._limits = JobLimits(**specification["limits"])
        self._folder = folder
        self._command: str = specification["command"]
        self._variables: dict[str, str] = specification["env"]
        self._notes: list[str] = specification["notes"]
        self._attempt: int = specification["attempt"]
        self._attempts: int = specification["retries"] + 1
        self._job_folder = Path(specification["folder"])
        self._python = folder / PYTHON
        self._log = JobLog(folder, self._limits.log)
        self._tree = ProcessTree(self._log.write, _GRACE)
        self._started: str | None = None

    def run(self) -> None:
        """Prepare the environment, run the command, again if need be, and write down how it ended."""
        adopt_orphans()
        # From here on a signal reaches us; a wish that came before is found below.
        self._take_up()
        if (self._folder / CANCEL).exists():
            self._tree.stop()
        for note in self._notes:
            self._log.say(note)
        outcome = self._attempt_until_done()
        if self._log.dropped:
            self._log.say(f"{self._log.dropped} bytes were lost, see above.")
        size = self._log.size
        self._log.close()
        finished = _now()
        shutil.rmtree(self._python, ignore_errors=True)
        if outcome:
            facts = {"started": self._started, "finished": finished, "log_bytes": size}
            # How a job ended must not be lost to a disk that is full for a while.
            while not _written(self._folder / EXIT, {**outcome, **facts}):
                time.sleep(1)

    def _take_up(self) -> None:
        facts = {"pid": os.getpid(), "attempt": self._attempt, "boot": boot_id()}
        write_json(self._folder / SUPERVISOR, facts)

    def _attempt_until_done(self) -> dict[str, Any] | None:
        """Run the job as often as it may be; None where another supervisor is to make the next attempt."""
        while True:
            watch = Watch(self._limits, self._job_folder, group_name(self._folder))
            try:
                outcome, final = self._run(watch)
            except (OSError, subprocess.SubprocessError) as error:
                outcome, final = _failed(None, f"the command could not be started: {error}"), True
            finally:
                watch.close()
            if final or self._attempt >= self._attempts:
                return outcome
            self._log.say(
                f"Attempt {self._attempt} failed: {outcome['message']}. It is run again, attempt {self._attempt + 1} of"
                f" {self._attempts}."
            )
            if self._tree.stopping:
                return None
            self._tree.pause(min(_FIRST_PAUSE * 2 ** (self._attempt - 1), _LONGEST_PAUSE))
            self._attempt += 1
            self._take_up()

    def _run(self, watch: Watch) -> tuple[dict[str, Any], bool]:
        """Run the job once; returns how that ended, and whether it is not to be tried again."""
        self._job_folder.mkdir(parents=True, exist_ok=True)
        # To prepare it may take as long as the job may; the time of the command counts anew.
        watch.start_the_clock()
        installed, overstepped = self._prepare(watch)
        if overstepped:
            return _failed(None, overstepped), watch.time_is_up
        if self._tree.stopping:
            return self._stopped(None)
        self._log.say(f"Running: {self._command}")
        watch.start_the_clock()
        own = {**self._variables, JOB_VARIABLE: str(self._folder)}
        environment = job_environment(os.environ, self._python, own, installed=installed)
        ended = self._tree.run(["/bin/sh", "-c", self._command], self._job_folder, environment, watch, self._on_start)
        if ended.stopped:
            return self._stopped(ended.status)
        if ended.overstepped:
            # More time would be needed again.
            return _failed(ended.status, ended.overstepped), watch.time_is_up
        if ended.status == 0:
            return {"state": "SUCCEEDED", "exit_code": 0, "message": ""}, True
        return _failed(ended.status, f"the command {in_words(ended.status)}"), False

    def _prepare(self, watch: Watch) -> tuple[bool, str]:
        """Make the Python environment of the job; returns whether its requirements are in it, and what went wrong."""
        uv = find_uv_bin()
        if not self._python.exists():
            self._make_python(uv, watch)
        if not (self._job_folder / _REQUIREMENTS).is_file() or self._tree.stopping:
            return False, ""
        self._log.say(f"Installing {_REQUIREMENTS}")
        ended = self._do(install_command(uv, self._python, _REQUIREMENTS), watch)
        if ended.status and not ended.overstepped and not self._tree.stopping:
            self._log.say("That failed; the command goes on without it, and may install what it needs itself.")
        return not ended.status, ended.overstepped

    def _make_python(self, uv: str, watch: Watch) -> None:
        for command in create_commands(uv, self._python):
            if not self._do(command, watch).status:
                return

    def _do(self, command: list[str], watch: Watch) -> Ended:
        if self._tree.stopping:
            return Ended(0, stopped=True)
        environment = {**os.environ, JOB_VARIABLE: str(self._folder)}
        return self._tree.run(command, self._job_folder, environment, watch)

    def _on_start(self, pid: int) -> None:
        self._started = _now()
        write_json(
            self._folder / STARTED, {"pid": pid, "created": psutil.Process(pid).create_time(), "started": self._started}
        )

    def _stopped(self, status: int | None) -> tuple[dict[str, Any], bool]:
        if (self._folder / CANCEL).exists():
            return {"state": "CANCELED", "exit_code": status, "message": "canceled on request"}, True
        return _failed(status, "the job's supervisor was told to stop, as by a machine that shuts down"), False


def group_name(folder: Path) -> str:
    """The control group of a job, by its state folder: no two services of a machine share one."""
    return f"airflow-training-{hashlib.sha256(str(folder).encode()).hexdigest()[:20]}"


def boot_id() -> str:
    """What tells this boot of the machine from every other. Source: random(4)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(psutil.boot_time())


def in_words(status: int) -> str:
    """Say how a command ended.

    >>> in_words(3), in_words(-9), in_words(137)[:25]
    ('exited with status 3', 'was killed by signal 9 (SIGKILL)', 'exited with status 137: a')
    """
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else "a real-time signal"
        return f"was killed by signal {-status} ({name})"
    if status - 128 in {signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGBUS}:
        name = signal.Signals(status - 128).name
        return f"exited with status {status}: a program of it was killed by signal {status - 128} ({name})"
    return f"exited with status {status}"


def _written(file: Path, document: dict[str, Any]) -> bool:
    try:
        write_json(file, document)
    except OSError:
        return False
    return True


def _failed(status: int | None, message: str) -> dict[str, Any]:
    return {"state": "FAILED", "exit_code": status, "message": message}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
