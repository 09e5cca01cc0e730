"""The process that holds one job, whatever becomes of the service: `python -m … <state folder of the job>`.

The state folder is all that it shares with the service:

```
spec.json        what is to be run, written by the service
lock             held locked for as long as the supervisor lives
supervisor.json  its process id: the job has been taken up, by this supervisor and no other
started.json     when the command started, its process id and when that was created
cancel           written by the service: the next SIGTERM is the wish of the tenant
log.txt, log.ndjson
exit.json        how it ended, written when the log is complete
```
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
from uv import find_uv_bin

from airflow_training.service.files import read_json, write_json
from airflow_training.service.runners.environment import (
    create_command,
    create_without_index_command,
    install_command,
    job_environment,
)
from airflow_training.service.runners.job_log import JobLog
from airflow_training.service.runners.process_tree import Ended, ProcessTree, adopt_orphans

SPECIFICATION = "spec.json"
LOCK = "lock"
SUPERVISOR = "supervisor.json"
STARTED = "started.json"
CANCEL = "cancel"
EXIT = "exit.json"
PYTHON = "env"

# Between SIGTERM and SIGKILL.
_GRACE = 5.0
_REQUIREMENTS = "requirements.txt"


def main(folder: Path) -> None:
    """Run the job of a state folder, unless another supervisor has done so or is doing so."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / SUPERVISOR).exists():
            Supervisor(folder).run()


class Supervisor:
    """Runs one job.

    Args:
        folder: Its state folder.
    """

    def __init__(self, folder: Path) -> None:
        specification: dict[str, Any] = read_json(folder / SPECIFICATION) or {}
        self._folder = folder
        self._command: str = specification["command"]
        self._variables: dict[str, str] = specification["env"]
        self._image: str | None = specification["image"]
        self._job_folder = Path(specification["folder"])
        self._python = folder / PYTHON
        self._log = JobLog(folder)
        self._tree = ProcessTree(self._log.write, _GRACE)
        self._started: str | None = None

    def run(self) -> None:
        """Prepare the environment, run the command, write down how it ended."""
        adopt_orphans()
        # From here on a signal reaches us; a wish that came before is found below.
        write_json(self._folder / SUPERVISOR, {"pid": os.getpid()})
        if (self._folder / CANCEL).exists():
            self._tree.stop()
        try:
            outcome = self._run()
        except OSError as error:
            outcome = {"state": "FAILED", "exit_code": None, "message": f"the command could not be started: {error}"}
        self._log.close()
        write_json(self._folder / EXIT, {**outcome, "started": self._started, "finished": _now()})
        shutil.rmtree(self._python, ignore_errors=True)

    def _run(self) -> dict[str, Any]:
        if self._image:
            self._log.say(f"Jobs run as processes here: the image {self._image} is recorded and not used.")
        self._job_folder.mkdir(parents=True, exist_ok=True)
        installed = self._prepare()
        if self._tree.stopping:
            return self._stopped(None)
        self._log.say(f"Running: {self._command}")
        environment = job_environment(os.environ, self._python, self._variables, installed=installed)
        ended = self._tree.run(["/bin/sh", "-c", self._command], self._job_folder, environment, self._on_start)
        if ended.stopped:
            return self._stopped(ended.status)
        if ended.status == 0:
            return {"state": "SUCCEEDED", "exit_code": 0, "message": ""}
        return {"state": "FAILED", "exit_code": ended.status, "message": f"the command {in_words(ended.status)}"}

    def _prepare(self) -> bool:
        """Make the Python environment of the job, and tell whether its requirements are in it."""
        uv = find_uv_bin()
        if self._do(create_command(uv, self._python)).status:
            self._do(create_without_index_command(self._python))
        requirements = self._job_folder / _REQUIREMENTS
        if not requirements.is_file() or self._tree.stopping:
            return False
        self._log.say(f"Installing {_REQUIREMENTS}")
        if not self._do(install_command(uv, self._python, _REQUIREMENTS)).status:
            return True
        if not self._tree.stopping:
            self._log.say("That failed; the command goes on without it, and may install what it needs itself.")
        return False

    def _do(self, command: list[str]) -> Ended:
        if self._tree.stopping:
            return Ended(0, stopped=True)
        return self._tree.run(command, self._job_folder, os.environ)

    def _on_start(self, pid: int) -> None:
        self._started = _now()
        write_json(
            self._folder / STARTED, {"pid": pid, "created": psutil.Process(pid).create_time(), "started": self._started}
        )

    def _stopped(self, status: int | None) -> dict[str, Any]:
        if (self._folder / CANCEL).exists():
            return {"state": "CANCELED", "exit_code": status, "message": "canceled on request"}
        return {
            "state": "FAILED",
            "exit_code": status,
            "message": "the job's supervisor was told to stop, as by a machine that shuts down",
        }


def in_words(status: int) -> str:
    """Say how a command ended.

    >>> in_words(3), in_words(-9), in_words(137)[:25]
    ('exited with status 3', 'was killed by signal 9 (SIGKILL)', 'exited with status 137: a')
    """
    if status < 0:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    if status - 128 in {signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGBUS}:
        name = signal.Signals(status - 128).name
        return f"exited with status {status}: a program of it was killed by signal {status - 128} ({name})"
    return f"exited with status {status}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
