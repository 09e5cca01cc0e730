"""README and "Five minutes", as a newcomer reads them: all commands on the pages, in order, in one shell."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_training.local.process import end_processes_in, free_port
from tests.pages import DOCS, PROJECT, Block, answers, blocks
from tests.patience import PATIENCE

MARK = "--- end of a block ---"

# Commands that do not run here, and where they run.
ELSEWHERE = {
    "make demo": "tests/cli/test_demo.py",
    "make test": "runs this test",
    "make install": "has made the environment of this test; .ci/run does it in a clean clone",
    ". .venv/bin/activate": "the environment of this test is on the path",
    "airflow standalone": "does not end; tests/airflow and tests/cli/test_demo.py start what it starts",
    "pip install /path/to/airflow-training": "tests/test_wheel.py installs it into an environment of its own",
    "pip install '/path/to/airflow-training[service]'": "tests/test_wheel.py, and make install",
}

README = [block for block in blocks(PROJECT / "README.md") if block.language == "sh"]
START = [block for block in blocks(DOCS / "start.md") if block.language in ("sh", "text")]


def lines(page: list[Block]) -> set[str]:
    return {line.split("#")[0].strip() for block in page for line in block.text.splitlines()}


def test_the_commands_of_the_readme_run_elsewhere() -> None:
    assert README
    assert lines(README) <= set(ELSEWHERE)


def test_the_commands_that_run_elsewhere_are_still_on_a_page() -> None:
    assert set(ELSEWHERE) <= lines([*README, *START])


# It installs a library, as the demo does.
@pytest.mark.slow
@pytest.mark.xdist_group("demo")
def test_five_minutes_lead_from_nothing_to_a_model(tmp_path: Path) -> None:
    shell = [block for block in START if block.language == "sh"]
    # Another process may use the port; settings of Airflow and of services are the user's.
    port = str(free_port())
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("AIRFLOW", "TRAINING", "PYTEST", "XDG"))}
    environment = inherited | {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(PROJECT),
    }
    try:
        done = subprocess.run(
            ["sh", "-eu"],
            input="".join(f"{runnable(block.text)}echo\necho '{MARK}'\n" for block in shell).replace("8900", port),
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        end_processes_in(tmp_path)

    printed = dict(zip(shell, done.stdout.replace(port, "8900").split(MARK), strict=False))
    assert len(printed) == len(shell)
    for block, answer in pairwise(START):
        if answer.language == "text":
            assert answers(answer.text, printed[block]), (
                f"{answer}: the page says\n{answer.text}\nand it is\n{printed[block]}"
            )
    by_command = {block.text.splitlines()[-1]: text for block, text in printed.items()}
    assert "state=success" in by_command["airflow dags test first_training"]
    assert "A house of 1.2 costs 4.6." in by_command["airflow dags test first_training"]
    assert not (tmp_path / "first-training").exists()


def runnable(block: str) -> str:
    """A block without the commands that run elsewhere."""
    return "".join(line for line in block.splitlines(keepends=True) if line.strip() not in ELSEWHERE)
