"""Local processes that are started and terminated by this one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from airflow_training.exceptions import TrainingError

# Seconds between SIGTERM and SIGKILL.
_GRACE = 5.0


class LocalProcessError(TrainingError):
    """A local process has ended, or did not become ready."""


class LocalProcess:
    """One program, with its output in a file.

    Args:
        command: The program and its arguments.
        folder: Its working directory, and the folder of its output.
        name: Its name: the output is in `{name}.log`.
        env: Its environment.
    """

    def __init__(self, command: Sequence[str], *, folder: Path, name: str, env: Mapping[str, str]) -> None:
        self.command = list(command)
        self.name = name
        self.output = folder / f"{name}.log"
        self._folder = folder
        self._env = dict(env)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl+C in the terminal reaches only this process."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise LocalProcessError(f"{self.name} was not started.", code="AT-721")
        return self._process.pid

    def stop(self, grace: float = _GRACE) -> None:
        """Terminate it; kill it after `grace` seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it, as in a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise LocalProcessError, with the end of its output, if it has ended by itself."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise LocalProcessError(
                f"{self.name} ended by itself with status {status}. Its output is in {self.output} and ends with:\n"
                f"{self.tail()}",
                code="AT-722",
            )

    def tail(self, lines: int = 15) -> str:
        """The last lines of its output."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])


def processes_in(folder: Path) -> list[psutil.Process]:
    """All processes with working directory or `TMPDIR` in a folder, or its path in their arguments, and their children.

    Other variables do not count: an editor may have any folder in its `OLDPWD`.
    """
    here = str(folder)

    def belongs(process: psutil.Process) -> bool:
        try:
            folders = (process.cwd(), process.environ().get("TMPDIR", ""))
            return any(folder.startswith(here) for folder in folders) or any(here in word for word in process.cmdline())
        except psutil.Error:
            return False

    # Processes in a container do not match, but the process that started it does.
    found = {process: None for process in psutil.process_iter() if belongs(process)}
    for process in list(found):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update(dict.fromkeys(process.children(recursive=True)))
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in found if process.pid not in ours]


def end_processes_in(folder: Path) -> list[psutil.Process]:
    """Terminate all processes of a folder, kill them after a grace period, and return them."""
    processes = processes_in(folder)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=_GRACE)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_GRACE)
    return processes


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float, interval: float = 0.1) -> None:
    """Wait until a condition is true; raises LocalProcessError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LocalProcessError(f"Timed out after {timeout:g} s: {what}.", code="AT-723")
        time.sleep(interval)


def free_port() -> int:
    """A free TCP port of the loopback interface."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
