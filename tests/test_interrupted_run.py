"""Nothing is left of an interrupted run of the tests, or of any other guarded process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from airflow_training.local.process import processes_in
from tests.patience import wait_for

# Both workers start a service; one also an Airflow.
TESTS = (
    "tests/airflow/test_training.py::test_a_training_occupies_no_worker_and_returns_its_model",
    "tests/service/test_submit.py",
)


def started(word: str, folder: Path) -> bool:
    """Whether a process of a folder has an argument."""
    for process in processes_in(folder):
        with suppress(psutil.Error):
            if word in process.cmdline():
                return True
    return False


def interrupt_the_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)


WAYS: dict[str, Callable[[subprocess.Popen[bytes]], None]] = {
    "Ctrl+C": interrupt_the_group,
    "SIGTERM": subprocess.Popen.terminate,
    "SIGKILL": subprocess.Popen.kill,
}
# A process of each moment: services; Airflow before it is healthy; a job that waits for a file.
MOMENTS = {"services": "serve", "Airflow": "triggerer", "a job": "wait_then_save.py"}


@pytest.mark.slow
@pytest.mark.xdist_group("interrupted")  # each starts an Airflow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_a_run_that_is_interrupted(way: str, moment: str, tmp_path: Path) -> None:
    temporary, output = tmp_path / "t", tmp_path / "output"
    temporary.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
    with output.open("wb") as file:
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "--numprocesses", "2", *TESTS],
            env={**inherited, "TMPDIR": str(temporary)},
            stdout=file,
            stderr=file,
            start_new_session=True,
            # In the background of a shell, these tests and their processes ignore Ctrl+C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread
        )

    def reached() -> bool:
        assert run.poll() is None, "it has ended"
        return started(MOMENTS[moment], temporary)

    with run:
        try:
            wait_for(reached, moment)
        except AssertionError as error:
            running = "\n".join(str(process) for process in processes_in(temporary))
            raise AssertionError(f"{error}\n{output.read_text()}\n{running}") from None
        WAYS[way](run)
        wait_for(lambda: not processes_in(temporary), "The end of every process")

    wait_for(lambda: not list(temporary.iterdir()), "The end of every folder")


OWNER = """
import os, subprocess, sys
from airflow_training.local.guard import guarded_folder

with guarded_folder("guarded-") as folder:
    sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
    options = {"start_new_session": True, "stdout": subprocess.DEVNULL}
    named = subprocess.Popen([*sleep, str(folder)], env={}, **options)
    working = subprocess.Popen(sleep, cwd=folder, env={}, **options)
    temporary = subprocess.Popen(sleep, env={"TMPDIR": str(folder / "t")}, **options)
    another = subprocess.Popen(sleep, env={"OLDPWD": str(folder)}, **options)
    print(folder, named.pid, working.pid, temporary.pid, another.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [subprocess.Popen.kill, subprocess.Popen.terminate])
def test_guarded_processes_end_with_their_owner_and_no_others(
    end: Callable[[subprocess.Popen[str]], None],
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        name, *pids = owner.stdout.readline().split()
        *guarded, another = [psutil.Process(int(pid)) for pid in pids]
        try:
            end(owner)
            wait_for(lambda: not Path(name).exists(), "The end of the folder")

            assert not any(process.is_running() for process in guarded)
            assert another.is_running()
        finally:
            another.kill()
