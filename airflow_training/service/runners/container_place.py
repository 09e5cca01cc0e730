"""A job in a container of its own, which a client program starts and follows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from airflow_training.service.runners import container_client, staging
from airflow_training.service.runners.limits import JobLimits, Watch
from airflow_training.service.runners.place import PlaceFailed, Program
from airflow_training.service.runners.process_tree import Ended
from airflow_training.service.runners.state_folder import name_of

# Jobs run as the service's user; where that is root, as the one who owns nothing. Source: nobody in passwd(5).
NOBODY = 65534

# So long is waited before what a job wrote is brought back once more, where the disk is full.
_PAUSE = 5.0


class ContainerPlace:
    """Runs the command in a container, on a copy of the files that were uploaded.

    Args:
        state: The state folder of the job.
        specification: What is to be run.
    """

    def __init__(self, state: Path, specification: Mapping[str, Any]) -> None:
        self._state = state
        self._limits = JobLimits(**specification["limits"])
        self._engine: dict[str, str] = specification["engine"]
        self._folder = container_client.folder_of(state)
        self._staging = {
            "bucket_folder": specification["folder"],
            "work": str(self._folder / container_client.WORK),
            "state": str(state),
            "owner": os.getuid() or NOBODY,
        }

    @property
    def holder(self) -> str:
        """The name of the container."""
        return f"container-{name_of(self._state)}"

    def watch(self) -> Watch:
        """Watch the disk that the container writes to; the engine limits all else."""
        return _ContainerWatch(self._limits, self._folder, self._state, self.clean)

    def prepare(self, run: Callable[[Program], Ended], say: Callable[[str], None]) -> Ended | None:
        """Copy the job's files, and have the engine pull the image."""
        container_client.make_folder(self._state, self._staging["owner"])
        for program in (self._copy("fetch"), self._client("prepare")):
            ended = run(program)
            if ended.overstepped or ended.stopped:
                return ended
            if ended.status:
                raise PlaceFailed(container_client.failure(self._state) or "the job's files could not be copied")
        return None

    def program(self) -> Program:
        """The client that starts the container, hands its output on, and ends as the command does."""
        return self._client("run")

    def clean(self) -> None:
        """Remove the container, whatever it does."""
        _do(self._client("remove"))

    def close(self, say: Callable[[str], None]) -> None:
        """Remove the container, bring back what the job wrote, and remove the copy."""
        self.clean()
        said = ""
        while not (sent := _do(self._copy("send"))).ok:
            if sent.output != said:
                say(f"What the job wrote cannot be brought to the bucket, which is tried again: {sent.output}")
            said = sent.output
            time.sleep(_PAUSE)
        for line in sent.output.splitlines():
            say(line)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _copy(self, step: str) -> Program:
        return self._python(staging.__name__, step, json.dumps(self._staging))

    def _client(self, step: str) -> Program:
        return self._python(container_client.__name__, step, str(self._state))

    def _python(self, module: str, *arguments: str) -> Program:
        return Program([sys.executable, "-m", module, *arguments], Path.cwd(), {**os.environ, **self._engine})


class _ContainerWatch(Watch):
    """Watches the client of a container; what is limited by the engine shows in what the client notes.

    Args:
        limits: What the job may use.
        folder: All that the container can write to of this machine's disk.
        state: The state folder of the job.
        remove: Removes the container.
    """

    def __init__(self, limits: JobLimits, folder: Path, state: Path, remove: Callable[[], None]) -> None:
        super().__init__(limits, folder)
        self._state = state
        self._remove = remove
        self._killed = False
        container_client.forget_failure(state)

    def kill(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """End the client, which then cannot remove the container."""
        self._killed = self._killed or bool(processes())
        super().kill(processes)

    def close(self) -> None:
        """Remove the container, where its client had no time to."""
        if self._killed:
            self._remove()

    def overstepped(self, processes: Callable[[], list[psutil.Process]]) -> str:
        """Say what the job used too much of, or why it could not run; an empty text where it does well."""
        return container_client.failure(self._state) or super().overstepped(processes)


@dataclass(frozen=True)
class _Done:
    ok: bool
    output: str


def _do(program: Program) -> _Done:
    """Run a program that nobody may interrupt."""
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
    )
    return _Done(done.returncode == 0, done.stdout.strip())
