"""A program that runs for as long as the service does: it is started again whenever it ends."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from airflow_training.exceptions import coded
from airflow_training.service.durable_files import read_json, write_json

_logger = logging.getLogger(__name__)


class KeptProcess:
    """Keeps one program running.

    Args:
        name: What to call it.
        folder: Where its log and its process id are kept.
        command: Program and arguments.
        environment: All of its environment.
        descriptor: A file that it inherits.
        cwd: Where it runs; `folder` if not given.
    """

    # After its death it is started again this much later.
    _PAUSE = 0.5
    # So often in a row, and it is no bad luck any more.
    _BAD_LUCK = 3
    # What it may take to end requests that are under way.
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
        self._failures = 0
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def failure(self) -> str:
        """Why it does not come up; an empty text while there is hope."""
        if self._failures < self._BAD_LUCK:
            return ""
        lines = self._log_file.read_text(errors="replace").split("\n")
        return coded(
            f"{self._name} cannot be started: {next(filter(None, reversed(lines)), 'it gives no reason')}",
            code="AT-303",
        )

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def restart(self) -> None:
        """End it; it is started again."""
        if self._process:
            self._process.terminate()

    def works(self) -> None:
        """Tell that it does what it should: a later death is bad luck again."""
        self._failures = 0

    def stop(self) -> None:
        """End it for good."""
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
                _logger.exception("%s could not be started; that is tried again.", self._name)
            else:
                if self._stopping.is_set():
                    process.terminate()
                process.wait()
            if not self._stopping.is_set():
                self._failures += 1
                self._stopping.wait(self._PAUSE)

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


def end_orphan(name: str, folder: Path) -> None:
    """End what a service that was killed left running: it holds a port, and knows nothing of what comes now.

    Args:
        name: That of its `KeptProcess`.
        folder: The same as there.
    """
    before = read_json(folder / f"{name}.json")
    with contextlib.suppress(psutil.NoSuchProcess):
        if before and (process := psutil.Process(before["pid"])).create_time() == before["created"]:
            process.kill()
            process.wait()
