"""The process that holds one job, whatever becomes of the service: `python -m … <state folder of the job>`."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_training.exceptions import coded
from airflow_training.service.durable_files import read_json, write_json
from airflow_training.service.runners.process.process_tree import Ended, ProcessTree, adopt_orphans
from airflow_training.service.runners.run_folder import (
    CANCEL,
    EXIT,
    LOCK,
    OUTCOME,
    SPECIFICATION,
    STARTED,
    SUPERVISOR,
    boot_id,
)
from airflow_training.service.runners.supervisor.backend import Place, PlaceFailed, Program
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.limits import Watch
from airflow_training.service.runners.supervisor.secret_masks import Masks
from airflow_training.service.runners.supervisor.usage import Sampler
from airflow_training.service.runners.supervisor.usage_file import UsageFile

# Seconds before a job is run again: doubled with each attempt, up to a minute.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


def main(state: Path) -> None:
    """Run the job of a state folder, unless another supervisor has taken it up in our place."""
    with (state / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        specification: dict[str, Any] = read_json(state / SPECIFICATION) or {}
        made = read_json(state / SUPERVISOR)
        if (state / EXIT).exists():
            return
        # Only the module of this job's place is imported: there is a supervisor for each job.
        module, _, name = specification["place"].partition(":")
        place: Place = getattr(import_module(module), name)(state, specification)
        if made and not specification["goes_on"]:
            place.clean()
        if made and made["supervisor"] >= specification["supervisor"]:
            return
        Supervisor(state, specification, place).run()


class Supervisor:
    """Runs one job.

    Args:
        state: Its state folder.
        specification: What is to be run; where there is an outcome, only what is left is to be done.
        place: Where it runs.
    """

    def __init__(self, state: Path, specification: dict[str, Any], place: Place) -> None:
        self._state = state
        self._place = place
        self._command: str = specification["command"]
        self._notes: list[str] = specification["notes"]
        self._number: int = specification["supervisor"]
        self._attempt: int = specification["attempt"]
        self._attempts: int = specification["retries"] + 1
        goes_on: bool = specification["goes_on"]
        # A job of an earlier version of the service has none.
        self._masks = Masks(specification.get("masks") or ())
        self._log = JobLog(state, specification["limits"]["log"], marked=goes_on, masks=self._masks)
        usage = UsageFile(state)
        sampler = Sampler(usage.add, specification["gpus"])
        self._tree = ProcessTree(place.output(self._log, usage), place.grace, sampler)
        if goes_on:
            signal.signal(signal.SIGTERM, lambda *_: self._leave())

    def run(self) -> None:
        """Make ready, run the command, again if need be, and write down how it ended."""
        adopt_orphans()
        # From here on a signal reaches us; a wish that came before is found below.
        self._take_up()
        if (self._state / CANCEL).exists():
            self._tree.stop()
        for note in self._notes:
            self._log.say(note)
        outcome = read_json(self._state / OUTCOME) or self._attempt_until_done()
        if outcome:
            outcome["message"] = self._masks.mask(outcome["message"])
            self._write(OUTCOME, outcome)
            self._place.close(self._log.say)
        if self._log.dropped:
            self._log.say(f"{self._log.dropped} bytes were lost, see above.")
        size = self._log.size
        self._log.close()
        if outcome:
            started = read_json(self._state / STARTED)
            facts = {"started": started and started["started"], "finished": _now(), "log_bytes": size}
            self._write(EXIT, {**outcome, **facts})

    def _write(self, name: str, document: dict[str, Any]) -> None:
        """Write down how the job ended, which must not be lost to a disk that is full for a while."""
        while not _written(self._state / name, document):
            time.sleep(1)

    def _leave(self) -> None:
        """Cancel the job where that is wished; where our machine shuts down, leave it to the next supervisor."""
        if not (self._state / CANCEL).exists():
            os._exit(0)
        self._tree.stop()

    def _take_up(self) -> None:
        facts = {
            "pid": os.getpid(),
            "supervisor": self._number,
            "attempt": self._attempt,
            "boot": boot_id(),
            "at": time.time(),
        }
        write_json(self._state / SUPERVISOR, facts)

    def _attempt_until_done(self) -> dict[str, Any] | None:
        """Run the job as often as it may be; None where another supervisor is to make the next attempt."""
        while True:
            watch = self._place.watch()
            try:
                outcome, final = self._run(watch)
            except PlaceFailed as error:
                outcome, final = _failed(None, str(error)), False
            except (OSError, subprocess.SubprocessError) as error:
                why = coded(f"the command could not be started: {error}", code="AT-457")
                outcome, final = _failed(None, why), True
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
            self._attempt += 1
            self._take_up()
            self._tree.pause(min(_FIRST_PAUSE * 2 ** (self._attempt - 2), _LONGEST_PAUSE))

    def _run(self, watch: Watch) -> tuple[dict[str, Any], bool]:
        """Run the job once; returns how that ended, and whether it is not to be tried again."""
        started = read_json(self._state / STARTED)
        if not started or started["attempt"] < self._attempt:
            ended = self._place.prepare(lambda program: self._do(program, watch), self._log.say)
            if ended and ended.overstepped:
                return _failed(None, ended.overstepped), watch.time_is_up
            if self._tree.stopping:
                return self._stopped(None)
        # Else the supervisor before us had come that far.
        watch.start_the_clock()
        program = self._place.program()
        ended = self._tree.run(program.command, program.folder, program.environment, watch, self._on_start)
        if ended.stopped:
            return self._stopped(ended.status)
        if ended.overstepped:
            # More time would be needed again.
            return _failed(ended.status, ended.overstepped), watch.time_is_up
        if ended.status == 0:
            return {"state": "SUCCEEDED", "exit_code": 0, "message": ""}, True
        return _failed(ended.status, coded(f"the command {in_words(ended.status)}", code="AT-451")), False

    def _do(self, program: Program, watch: Watch) -> Ended:
        if self._tree.stopping:
            return Ended(0, stopped=True)
        return self._tree.run(program.command, program.folder, program.environment, watch)

    def _on_start(self, pid: int) -> None:
        known = read_json(self._state / STARTED)
        if not known or known["attempt"] < self._attempt:
            facts = {"holder": f"{self._place.holder}-{pid}", "started": _now(), "attempt": self._attempt}
            write_json(self._state / STARTED, facts)
            self._log.say(f"Running: {self._command}")

    def _stopped(self, status: int | None) -> tuple[dict[str, Any], bool]:
        if (self._state / CANCEL).exists():
            return {"state": "CANCELED", "exit_code": status, "message": "canceled on request"}, True
        why = coded("the job's supervisor was told to stop, as by a machine that shuts down", code="AT-465")
        return _failed(status, why), False


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
