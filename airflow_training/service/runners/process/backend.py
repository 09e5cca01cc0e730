"""Runs a job as a process of this machine, in its own Python environment."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
from uv import find_uv_bin

from airflow_training.api.naming import INSTALLED_FILE
from airflow_training.service.atomic_files import write_atomic
from airflow_training.service.runners.process.cgroup import Cgroup
from airflow_training.service.runners.process.memory_and_process_limits import ProcessLimiter
from airflow_training.service.runners.run_folder import JOB_VARIABLE, WORK, Spec, unique_name
from airflow_training.service.runners.supervisor.backend import Backend, BackendFailed
from airflow_training.service.runners.supervisor.environment import (
    OWN_PYTHON,
    create_commands,
    find_python,
    install_command,
    installed_packages,
    installed_pythons,
    job_environment,
)
from airflow_training.service.runners.supervisor.process_tree import Ended, Program
from airflow_training.service.runners.supervisor.time_and_disk_limits import Limiter
from airflow_training.service.runners.supervisor.working_copy import WorkingCopy, remove_tree

_REQUIREMENTS = "requirements.txt"


class ProcessBackend(Backend):
    """Runs the command on a copy of the job's files.

    Args:
        state: The run folder of the job.
        spec: The job.
    """

    name = "process"
    grace = 5.0

    def __init__(self, state: Path, spec: Spec) -> None:
        self._state = state
        self._command = spec.command
        self._version = spec.python or OWN_PYTHON
        # A job that requests no GPU sees none, rather than those of other jobs.
        self._variables = {**spec.env, "CUDA_VISIBLE_DEVICES": ",".join(spec.gpus)}
        self._limits = spec.limits
        self._folder = state / WORK
        self._files = WorkingCopy(spec.files, self._folder, state, owner=os.getuid(), most=self._limits.disk)
        self._python = state / "env"
        self._installed = False

    def limiter(self) -> Limiter:
        """Enforce time, disk, memory and number of processes."""
        limiter = ProcessLimiter(self._limits, self._folder, unique_name(self._state))
        # The preparation may take as long as the command; the clock then starts again.
        limiter.start_clock()
        return limiter

    def prepare(self, run: Callable[[Program], Ended], emit: Callable[[str], None]) -> Ended | None:
        """Copy the job's files, create its Python environment, and install its requirements into it."""
        if fetched := self._files.fetch(run):
            return fetched
        uv = find_uv_bin()
        if not self._python.exists():
            for command in create_commands(uv, self._python, self._interpreter(uv)):
                ended = run(self._tool(command))
                if ended.exceeded or ended.stopped:
                    return ended
                if not ended.status:
                    break
        self._installed = False
        if not (self._folder / _REQUIREMENTS).is_file():
            return None
        emit(f"Installing {_REQUIREMENTS}")
        ended = run(self._tool(install_command(uv, self._python, _REQUIREMENTS)))
        if ended.exceeded or ended.stopped:
            return ended
        self._installed = not ended.status
        if ended.status:
            emit("The installation failed; the command starts without it, and may install what it needs.")
        return None

    def program(self) -> Program:
        """The command, in a shell."""
        own = {**self._variables, JOB_VARIABLE: str(self._state)}
        environment = job_environment(os.environ, self._python, own, installed=self._installed)
        return Program(["/bin/sh", "-c", self._command], self._folder, environment)

    def clean(self) -> None:
        """End what a killed supervisor left behind: nothing reads its output any more."""
        if group := Cgroup.find(unique_name(self._state)):
            group.kill()
            group.remove()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(JOB_VARIABLE) == str(self._state):
                    process.kill()
        shutil.rmtree(self._python, ignore_errors=True)

    def close(self, emit: Callable[[str], None]) -> None:
        """Remove the Python environment, and copy back what the job wrote."""
        self._list_installed()
        shutil.rmtree(self._python, ignore_errors=True)
        self._files.send(emit)
        remove_tree(self._folder)

    def _interpreter(self, uv: str) -> str:
        if found := find_python(uv, self._version, os.environ):
            return found
        versions = ", ".join(installed_pythons(uv, os.environ))
        raise BackendFailed(
            f"the job needs Python {self._version}, but the machine that runs it has only Python {versions}",
            code="AT-468",
        )

    def _list_installed(self) -> None:
        """Leave a list of the installed packages in the job's folder; a job does not fail without it."""
        if not (self._folder / _REQUIREMENTS).is_file():
            return
        if installed := installed_packages(find_uv_bin(), self._python, self._folder, os.environ):
            with contextlib.suppress(OSError):
                # Written elsewhere first: the job may have left a link of that name.
                write_atomic(listed := self._state / INSTALLED_FILE, installed.encode())
                listed.replace(self._folder / INSTALLED_FILE)

    def _tool(self, command: list[str]) -> Program:
        return Program(command, self._folder, {**os.environ, JOB_VARIABLE: str(self._state)})
