"""`airflow-training validate`: a Dag file is checked from a terminal, without a service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import run

DAG = """
from airflow.sdk import DAG, Param, task

from airflow_training.operators.training import TrainingOperator
from nightly_names import COMMON

with DAG("nightly", schedule=None, params={"epochs": Param(8, type="integer")}):

    @task
    def newest() -> str: ...

    @task
    def variants() -> list: ...

    TrainingOperator(
        task_id="train",
        job_name="nightly",
        env={"EPOCHS": "{{ params.epochs }}"},
        data={"prices.csv": newest(), "labels": b"12"},
        **COMMON,
    )
    TrainingOperator.partial(task_id="sweep", job_name="sweep", args=["--fast"], **COMMON).expand(env=variants())

    @task.training(image="i", completion_time="1h", environment={"API_KEY": "pl4in-text"})
    def score(rate: float, key: str = "pl4in-text") -> None: ...

    score.partial(key="pl4in-text").expand_kwargs([{"rate": 0.1}, {"rate": 0.2}])
"""
NAMES = 'COMMON = {"script": "train.py", "image": "i", "completion_time": "1h"}\n'


@pytest.fixture
def dags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Airflow adds the folder to it, and leaves it there.
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "nightly.py").write_text(DAG)
    (folder / "nightly_names.py").write_text(NAMES)
    (folder / "train.py").write_text("print(1)")
    return folder


def test_a_terminal_shows_what_each_training_would_send(dags: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow_training.cli.main", "validate", "dags/nightly.py"],
        cwd=tmp_path,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    one, sweep, function = done.stdout.rstrip().split("\n\n")
    assert one.splitlines() == [
        "nightly.train",
        "  python3 train.py --epochs=8",
        "                8  train.py",
        "                ?  prices.csv",
        "                2  labels",
        "  known only when the task runs: data 'prices.csv'",
    ]
    assert sweep.splitlines() == [
        "nightly.sweep",
        "  python3 train.py --fast",
        "                8  train.py",
        "  known only when the task runs: env",
    ]
    assert "pl4in-text" not in function
    assert "--key=***" in function


def test_errors_are_listed_for_each_task_and_the_others_are_shown(dags: Path) -> None:
    (dags / "nightly.py").write_text(DAG.replace('b"12"', '"no.csv"'))

    done = run("validate", str(dags / "nightly.py"), "--task", "train", "--json")

    assert done.code == 1
    (train,) = done.json
    assert (train["dag_id"], train["task_id"]) == ("nightly", "train")
    assert f"data 'labels' does not exist: {dags / 'no.csv'}" in train["error"]


def test_an_error_of_the_file_is_one_sentence(dags: Path) -> None:
    (dags / "train.py").unlink()

    done = run("validate", str(dags / "nightly.py"))

    assert done.code == 1
    assert f"script does not exist: {dags / 'train.py'}. [AT-001] [AT-904]" in done.err
    assert len(done.err.splitlines()) == 1
    assert not done.out


def test_of_a_folder_the_scripts_are_not_run(dags: Path) -> None:
    (dags / "train.py").write_text("raise SystemExit('it would train')")

    assert [(each["task_id"], "error" in each) for each in run("validate", str(dags), "--json").json] == [
        ("train", False),
        ("sweep", False),
        ("score", False),
    ]


def test_a_task_that_is_not_there_is_an_error(dags: Path) -> None:
    done = run("validate", str(dags), "--task", "trian")

    assert done.code == 1
    assert "There is no training with the task id trian in " in done.err
