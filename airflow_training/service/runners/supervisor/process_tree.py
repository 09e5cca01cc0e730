"""Runs one program to the end of its last descendant: its output, its limits, and its end on SIGTERM.

Here a job ends that exceeds a limit, its completion time among them; see time_and_disk_limits.py for the limits.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from airflow_training.service.runners.supervisor.time_and_disk_limits import OUT_OF_TIME, Limiter
from airflow_training.service.runners.supervisor.usage import Sampler

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_READ_SIZE = 64 * 1024

# Seconds after which a line that has not ended is shown as it is, while more of it comes. The log of a progress bar
# grows by some ten thousand lines in a day, and a reader sees within seconds that the program has not hung.
_UNENDED_LINE = 10.0


class Output(Protocol):
    """Takes the output of programs."""

    def write(self, output: bytes, /) -> None:
        """Take the next bytes, which may begin and end within a line."""

    def show_line(self) -> None:
        """Show the line that has not ended as it is now."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none escapes.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER. On other systems than Linux a daemonized process is not found.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel end this process when its parent ends: nothing would read its output.

    Called between fork and exec, it applies to the program that runs then. Source: prctl(2), PR_SET_PDEATHSIG.

    Args:
        parent: The process id of the parent.
        number: The signal that it gets.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


@dataclass(frozen=True)
class Program:
    """A program to run.

    Attributes:
        command: The program and its arguments.
        folder: Its working directory.
        environment: All of its environment.
    """

    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        status: Its exit status; negative if a signal ended it.
        stopped: Whether it ended on request.
        exceeded: The limit that it exceeded and was ended for; empty if none.
    """

    status: int
    stopped: bool = False
    exceeded: str = ""


class ProcessTree:
    """Runs programs one after the other, each to the end of its last descendant.

    It takes over SIGTERM and SIGCHLD of this process: SIGTERM ends the program that runs.

    Args:
        output: Takes the output of the programs, both streams as one.
        grace: Seconds between SIGTERM and SIGKILL.
        sampler: Samples their usage.

    Attributes:
        stopping: Whether the end was requested.
    """

    # Seconds between two checks of the limits, and of whether the last process has ended.
    _TICK = 0.25
    _POLL = 0.05

    def __init__(self, output: Output, grace: float, sampler: Sampler) -> None:
        self.stopping = False
        self._output = output
        self._grace = grace
        self._sampler = sampler
        self._show_line_at = float("inf")
        self._selector = selectors.DefaultSelector()
        # A signal writes a byte here: one wait covers signals and output.
        self._signals, signals_in = os.pipe()
        for end in (self._signals, signals_in):
            os.set_blocking(end, False)
        self._selector.register(self._signals, selectors.EVENT_READ)
        signal.set_wakeup_fd(signals_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.stop())

    def stop(self) -> None:
        """End what runs, and run nothing more."""
        self.stopping = True

    def run_unless_stopping(self, program: Program, limiter: Limiter) -> Ended:
        """Run a program to its end, unless the end was requested; raises what `run` does."""
        return Ended(0, stopped=True) if self.stopping else self.run(program, limiter)

    def run(self, program: Program, limiter: Limiter, started: Callable[[int], None] = lambda _: None) -> Ended:
        """Run a program to its end.

        Args:
            program: The program.
            limiter: Enforces its limits.
            started: Called with its process id.

        Raises:
            OSError: It cannot be started.
            subprocess.SubprocessError: It cannot be limited.
        """
        output, output_in = os.pipe()
        try:
            process = subprocess.Popen(
                program.command,
                cwd=program.folder,
                env=program.environment,
                stdin=subprocess.DEVNULL,
                stdout=output_in,
                stderr=output_in,
                start_new_session=True,
                preexec_fn=limiter.enter,  # noqa: PLW1509 - this process has one thread only
            )
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(output_in)
        os.set_blocking(output, False)
        self._selector.register(output, selectors.EVENT_READ)
        try:
            started(process.pid)
            return self._follow(process, output, limiter)
        finally:
            limiter.kill(_descendants)
            if output in self._selector.get_map():
                self._selector.unregister(output)
            os.close(output)

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the request to end."""
        end = time.monotonic() + seconds
        while not self.stopping and (left := end - time.monotonic()) > 0:
            if self._selector.select(left):
                os.read(self._signals, _READ_SIZE)

    def _follow(self, process: subprocess.Popen[bytes], output: int, limiter: Limiter) -> Ended:
        kill_after = give_up_after = float("inf")
        next_look = 0.0
        self._sampler.begin()
        stopped: bool | None = None
        exceeded = ""
        while True:
            for key, _ in self._selector.select(self._TICK if stopped is None else self._POLL):
                if key.fd == self._signals:
                    os.read(self._signals, _READ_SIZE)
                elif not self._pass_on(output):
                    self._selector.unregister(output)
            _reap(process)
            ended = process.returncode is not None
            now = time.monotonic()
            self._show_line(now)
            if stopped is None and not ended and now > next_look:
                exceeded = limiter.exceeded(_descendants)
                self._sampler.sample_if_due(lambda: limiter.used(_descendants))
                next_look = now + self._TICK
            if stopped is None and (ended or self.stopping or exceeded or limiter.timed_out):
                # What a command leaves behind is ended like a command that is to stop.
                stopped = self.stopping and not ended
                # A program that exceeded a limit has no time to exceed it further.
                kill_after = now if exceeded else now + self._grace
                give_up_after = kill_after + self._grace
                if not ended and not self.stopping and not exceeded:
                    exceeded = OUT_OF_TIME
                for descendant in _descendants():
                    with contextlib.suppress(psutil.Error):
                        descendant.terminate()
            if (ended and not _descendants()) or now > give_up_after:
                break
            if now > kill_after:
                limiter.kill(_descendants)
        while self._pass_on(output):
            pass
        status = -signal.SIGKILL if process.returncode is None else process.returncode
        if not stopped:
            # The kernel may have been quicker than we were, and the command may have ignored it.
            exceeded = exceeded or limiter.exceeded(_descendants)
        return Ended(status, bool(stopped), exceeded)

    def _show_line(self, now: float) -> None:
        """Show a line that has not ended for a while; again when more of it has come."""
        if now > self._show_line_at:
            self._output.show_line()
            self._show_line_at = float("inf")

    def _pass_on(self, output: int) -> bool:
        """Pass on the next piece of output; False if there is none."""
        try:
            piece = os.read(output, _READ_SIZE)
        except BlockingIOError:
            return False
        if piece:
            self._output.write(piece)
            if piece.endswith(b"\n"):
                self._show_line_at = float("inf")
            elif b"\n" in piece or self._show_line_at == float("inf"):
                self._show_line_at = time.monotonic() + _UNENDED_LINE
        return bool(piece)


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Reap all children that have ended, adopted ones too."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == process.pid:
                process.returncode = os.waitstatus_to_exitcode(ended[1])


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)
