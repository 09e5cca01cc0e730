"""`airflow-training demo`, as a newcomer runs it: the real Dag, with the real TensorFlow."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_training.local.process import processes_in

# One demo at a time: each trains with TensorFlow.
pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.slow]

CHECKOUT = Path(__file__).parents[2]


class Demo:
    """A running demo, and its output so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed = ""

    def read_until(self, text: str) -> None:
        assert self.process.stdout
        while text not in self.printed:
            line = self.process.stdout.readline()
            assert line, f"the demo ended before it printed {text!r}: {self.printed}"
            self.printed += line

    def end(self) -> int:
        assert self.process.stdout
        self.printed += self.process.stdout.read()
        return self.process.wait()

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.printed)
        assert match, self.printed
        return match[1]

    @property
    def folder(self) -> Path:
        return CHECKOUT / self.found(r"all files are in (\S+)")


COMMAND = [sys.executable, "-m", "airflow_training.cli.main", "demo"]


@contextmanager
def running_demo() -> Iterator[Demo]:
    with subprocess.Popen(
        COMMAND,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Tests in the background of a shell ignore Ctrl+C, and their child processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - this process has one thread
    ) as process:
        demo = Demo(process)
        try:
            yield demo
        finally:
            process.terminate()
            demo.end()
            shutil.rmtree(demo.folder, ignore_errors=True)


def test_the_demo_trains_a_good_model_for_serving_and_leaves_nothing_running() -> None:
    with running_demo() as demo:
        assert demo.end() == 0, demo.printed
        assert processes_in(demo.folder) == []

        assert float(demo.found(r"Accuracy +([0-9.]+)%")) >= 84.5
        assert demo.printed.count('"epoch": 1,') == 1
        location = demo.found(r"Model +training://training_default@data/(\S+)")
        model = CHECKOUT / demo.found(r"On disk +(\S+)")
        assert str(model).endswith(location)
        saved = (model / "saved_model.pb").read_bytes()
        for column in (b"age", b"workclass", b"native_country"):
            assert b"serving_default_" + column in saved, "the signature takes the columns as they are in the data"


@pytest.mark.parametrize("when", ["Training service", "Submitted job"])
def test_a_demo_that_is_interrupted_leaves_nothing_running(when: str) -> None:
    with running_demo() as demo:
        demo.read_until(when)
        demo.process.send_signal(signal.SIGINT)

        assert demo.end() == 130, demo.printed
        assert processes_in(demo.folder) == []
        assert demo.printed.endswith("All processes of the demo have been stopped.\n")


def test_a_demo_whose_terminal_is_closed_leaves_nothing_running() -> None:
    terminal, its_end = pty.openpty()
    with subprocess.Popen(COMMAND, cwd=CHECKOUT, stdout=its_end, stderr=its_end, start_new_session=True) as process:
        os.close(its_end)
        printed = b""
        while b"Airflow: database" not in printed:
            printed += os.read(terminal, 1024)
        folder = CHECKOUT / re.findall(rb"all files are in (\S+)", printed)[0].decode()
        os.close(terminal)
        process.send_signal(signal.SIGHUP)

        assert process.wait() != 0
        assert processes_in(folder) == []
        shutil.rmtree(folder)
