"""A job as a process of this machine, with a Python environment of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from uv import find_uv_bin

from airflow_training.service.runners.process.cgroup import Cgroup
from airflow_training.service.runners.process.process_tree import Ended, Output
from airflow_training.service.runners.run_folder import JOB_VARIABLE, WORK, name_of
from airflow_training.service.runners.supervisor.backend import Program
from airflow_training.service.runners.supervisor.environment import create_commands, install_command, job_environment
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.limits import JobLimits, ProcessWatch, Watch
from airflow_training.service.runners.supervisor.staging import Staging
from airflow_training.service.runners.supervisor.usage_file import UsageFile

_REQUIREMENTS = "requirements.txt"


class ProcessPlace:
    """Runs the command on a copy of the files that were uploaded.

    Args:
        state: The state folder of the job.
        specification: What is to be run.
    """

    holder = "process"
    grace = 5.0

    def __init__(self, state: Path, specification: Mapping[str, Any]) -> None:
        self._state = state
        self._command: str = specification["command"]
        # No graphics processor at all, rather than those of others, where it has not asked for any.
        self._variables = {**specification["env"], "CUDA_VISIBLE_DEVICES": ",".join(specification["gpus"])}
        self._limits = JobLimits(**specification["limits"])
        self._folder = state / WORK
        self._files = Staging(specification["files"], self._folder, state, owner=os.getuid(), most=self._limits.disk)
        self._python = state / "env"
        self._installed = False

    def output(self, log: JobLog, _: UsageFile) -> Output:
        """What the programs write is the log of the job."""
        return log

    def watch(self) -> Watch:
        """Watch the folder and, in a control group, what the processes use."""
        watch = ProcessWatch(self._limits, self._folder, name_of(self._state))
        # To make ready may take as long as the job may; the time of the command counts anew.
        watch.start_the_clock()
        return watch

    def prepare(self, run: Callable[[Program], Ended], say: Callable[[str], None]) -> Ended | None:
        """Have the job's files, make its Python environment, and install its requirements into it."""
        if fetched := self._files.fetch(run):
            return fetched
        uv = find_uv_bin()
        if not self._python.exists():
            for command in create_commands(uv, self._python):
                ended = run(self._tool(command))
                if ended.overstepped or ended.stopped:
                    return ended
                if not ended.status:
                    break
        self._installed = False
        if not (self._folder / _REQUIREMENTS).is_file():
            return None
        say(f"Installing {_REQUIREMENTS}")
        ended = run(self._tool(install_command(uv, self._python, _REQUIREMENTS)))
        if ended.overstepped or ended.stopped:
            return ended
        self._installed = not ended.status
        if ended.status:
            say("That failed; the command goes on without it, and may install what it needs itself.")
        return None

    def program(self) -> Program:
        """The command, in a shell."""
        own = {**self._variables, JOB_VARIABLE: str(self._state)}
        environment = job_environment(os.environ, self._python, own, installed=self._installed)
        return Program(["/bin/sh", "-c", self._command], self._folder, environment)

    def clean(self) -> None:
        """End what a supervisor left behind that was killed itself: nobody would read its output any more."""
        if group := Cgroup.find(name_of(self._state)):
            group.kill()
            group.remove()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(JOB_VARIABLE) == str(self._state):
                    process.kill()
        shutil.rmtree(self._python, ignore_errors=True)

    def close(self, say: Callable[[str], None]) -> None:
        """Remove the Python environment, and bring what the job wrote to where it belongs."""
        shutil.rmtree(self._python, ignore_errors=True)
        self._files.send(say)
        self._files.remove()

    def _tool(self, command: list[str]) -> Program:
        return Program(command, self._folder, {**os.environ, JOB_VARIABLE: str(self._state)})
