"""Processes that are started here and are gone afterwards."""

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

# Between the request to end and the end by force.
_GRACE = 5.0


class LocalProcessError(TrainingError):
    """A process that was started here ended, or did not come up."""


class LocalProcess:
    """One program, with its output in a file.

    Args:
        command: The program and its arguments.
        folder: Where it runs, and where its output goes.
        name: What to call it: the output is in `{name}.log`.
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
        """Start it in a session of its own, out of reach of a Ctrl+C that is meant for us."""
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
        """Ask it to end, and after `grace` seconds end it by force."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it by force, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise LocalProcessError, with the end of its output, where it ended by itself."""
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
    """Every process that works in a folder, names it in its arguments or has its `TMPDIR` there, and its children.

    Other variables do not count: somebody's editor may have any folder in its `OLDPWD`.
    """
    here = str(folder)

    def belongs(process: psutil.Process) -> bool:
        try:
            folders = (process.cwd(), process.environ().get("TMPDIR", ""))
            return any(folder.startswith(here) for folder in folders) or any(here in word for word in process.cmdline())
        except psutil.Error:
            return False

    # Programs in a container name nothing of ours, but the process that started it does.
    found = {process: None for process in psutil.process_iter() if belongs(process)}
    for process in list(found):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update(dict.fromkeys(process.children(recursive=True)))
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in found if process.pid not in ours]


def end_all_in(folder: Path) -> list[psutil.Process]:
    """End every process of a folder: politely first, by force after a grace time; returns which there were."""
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
    """Wait for a state; raises LocalProcessError when it does not come within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LocalProcessError(f"{what} did not come within {timeout:g} s.", code="AT-723")
        time.sleep(interval)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
