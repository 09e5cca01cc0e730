"""A daemon of the service: a program that is restarted whenever it ends."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from airflow_training.exceptions import coded
from airflow_training.service.atomic_files import read_json, write_json

_logger = logging.getLogger(__name__)


class Daemon:
    """Keeps one program running.

    Args:
        name: Its name, in log lines and errors.
        folder: The folder of its log and its process id.
        command: Program and arguments.
        environment: All of its environment.
        descriptor: A file descriptor that it inherits.
        cwd: Its working directory; `folder` if not given.
    """

    # Seconds before a restart.
    _RESTART_DELAY = 0.5
    # The number of consecutive ends that are a failure.
    _MAX_ENDS = 3
    # Seconds for the requests that are running when the daemon is stopped.
    _GRACE = 2.0

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        descriptor: int,
        cwd: Path | None = None,
    ) -> None:
        self._name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._descriptor = descriptor
        self._cwd = cwd or folder
        self._id_file = folder / f"{name}.json"
        self._log_file = folder / f"{name}.log"
        self._ends = 0
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def failure(self) -> str:
        """Why it cannot be started; empty while restarts may help."""
        if self._ends < self._MAX_ENDS:
            return ""
        lines = self._log_file.read_text(errors="replace").split("\n")
        reason = next(filter(None, reversed(lines)), "it gives no reason")
        return coded(f"{self._name} cannot be started: {reason}", code="AT-303")

    def start(self) -> None:
        """Start the program."""
        self._thread.start()

    def restart(self) -> None:
        """End the program, which is then restarted."""
        if self._process:
            self._process.terminate()

    def mark_healthy(self) -> None:
        """Report that the program works, which resets the count of its ends."""
        self._ends = 0

    def stop(self) -> None:
        """End the program without a restart."""
        self._stopping.set()
        if self._process:
            self._process.terminate()
            self._thread.join(self._GRACE)
            self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._log_file.open("ab") as log:
                    self._process = process = self._launch(log.fileno())
            except OSError:
                _logger.exception("%s could not be started; it will be retried.", self._name)
            else:
                if self._stopping.is_set():
                    process.terminate()
                process.wait()
            if not self._stopping.is_set():
                self._ends += 1
                self._stopping.wait(self._RESTART_DELAY)

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._command,
            cwd=self._cwd,
            env=self._environment,
            pass_fds=[self._descriptor],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            created = psutil.Process(process.pid).create_time()
            write_json(self._id_file, {"pid": process.pid, "created": created})
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process


def kill_orphan(name: str, folder: Path) -> None:
    """Kill the program that a killed service left running: it holds a port, and has an outdated configuration.

    Args:
        name: The name of its `Daemon`.
        folder: The folder of its `Daemon`.
    """
    before = read_json(folder / f"{name}.json")
    with contextlib.suppress(psutil.NoSuchProcess):
        if before and (process := psutil.Process(before["pid"])).create_time() == before["created"]:
            process.kill()
            process.wait()
