"""The pytest plugin for users who test their own Dags."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from airflow_training.local.process import processes_in
from tests.pages import DOCS, PROJECT

DAG = """
    from airflow.sdk import DAG

    from airflow_training.operators.training import TrainingOperator

    with DAG("mine", schedule=None) as dag:
        TrainingOperator(
            task_id="train",
            job_name="mine",
            script="train.py",
            data={"sales.csv": b"1,2,3"},
            image="python:3",
            completion_time="10m",
        )
"""
SAVES = """
    from pathlib import Path

    Path("model/1").mkdir(parents=True)
    Path("model/1/saved_model.pb").write_text("m")
"""
FAILS = """
    raise SystemExit("The data has no prices.")
"""
TEST = """
    import os

    from airflow import settings
    from mine import dag

    before = settings.SQL_ALCHEMY_CONN

    def test_my_dag_trains(training_service):
        run = dag.test()

        assert run.state == "success"
        folder = training_service.job_folder("mine")
        assert (folder / "sales.csv").read_text() == "1,2,3"
        assert (folder / "model/1/saved_model.pb").is_file()
        assert [job.state.value for job in training_service.jobs()] == ["SUCCEEDED"]

    def test_all_is_as_before():
        assert "AIRFLOW_CONN_TRAINING_DEFAULT" not in os.environ
        assert settings.SQL_ALCHEMY_CONN == str(settings.engine.url) == before

    def test_it_trains_again(training_service):
        first = training_service.job_folder("mine")

        assert dag.test().state == "success"
        assert len(training_service.jobs()) == 2
        assert training_service.job_folder("mine") != first
"""


class UserProject:
    """The folder of a user's project, beside an Airflow home and a folder for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.home = folder / "airflow-home"
        self.python_path = [str(PROJECT)]

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))

    def pytest(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run pytest as the user does."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
        environment = {
            "AIRFLOW_HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join(self.python_path),
        }
        return subprocess.run(
            # By name: an installation that is older than the entry point does not load it.
            [sys.executable, "-m", "pytest", "-p", "airflow_training.testing", *options],
            cwd=self.folder,
            env=inherited | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def left_behind(self) -> list[object]:
        """Folders and processes left after pytest."""
        return [*self.temporary.glob("airflow-training-*"), *processes_in(self.temporary)]


@pytest.fixture
def project(tmp_path: Path) -> UserProject:
    project = UserProject(tmp_path)
    project.write("pytest.ini", "[pytest]\npythonpath = dags\naddopts = --strict-config --strict-markers\n")
    project.write("dags/mine.py", DAG)
    project.write("dags/train.py", SAVES)
    project.write("tests/test_mine.py", TEST)
    return project


@pytest.mark.slow
def test_a_users_dag_trains_in_a_test(project: UserProject) -> None:
    done = project.pytest()

    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
    assert not project.left_behind()
    assert not list(project.home.rglob("*.db")), "the user's own database is left alone"


def test_the_example_of_the_page_is_a_project_whose_test_passes(tmp_path: Path) -> None:
    project = UserProject(tmp_path)
    page = (DOCS / "testing.md").read_text()
    # Before the next heading, whose files are different.
    files = re.findall(r"^.*?`([\w/]+\.\w+)`.*:\n\n```\w+\n((?:.*\n)*?)```", page.split("\n## ")[0], re.MULTILINE)
    for name, text in files:
        project.write(name, text)

    done = project.pytest()

    assert [name for name, _ in files] == ["dags/nightly.py", "dags/train.py", "pytest.ini", "tests/test_nightly.py"]
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.slow
def test_tests_that_run_side_by_side_have_a_service_each(project: UserProject) -> None:
    project.write("tests/test_mine_too.py", TEST)

    done = project.pytest("-n", "2", "--dist", "loadfile", "-k", "my_dag")

    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert not project.left_behind()


def test_a_training_that_fails_fails_the_test_with_the_jobs_reason(project: UserProject) -> None:
    project.write("dags/train.py", FAILS)

    done = project.pytest("-k", "my_dag")

    assert done.returncode == 1
    assert "AssertionError: assert" in done.stdout
    assert "The data has no prices." in done.stdout
    assert not project.left_behind()


@pytest.mark.slow
def test_dags_elsewhere_are_named_in_pytests_settings(project: UserProject) -> None:
    (project.folder / "dags").rename(project.folder / "pipelines")

    unnamed = project.pytest("-o", "pythonpath=pipelines", "-k", "my_dag")
    named = project.pytest("-o", "pythonpath=pipelines", "-o", "training_dags=pipelines/mine.py", "-k", "my_dag")

    assert f"There is no {project.folder / 'dags'}: set training_dags in pytest's settings" in unnamed.stdout
    assert named.returncode == 0, named.stdout


def test_without_the_service_installed_the_test_fails_with_a_message(project: UserProject) -> None:
    project.write("without/argon2.py", "raise ModuleNotFoundError(\"No module named 'argon2'\", name='argon2')\n")
    project.python_path.append(str(project.folder / "without"))

    done = project.pytest("-k", "my_dag")

    assert done.returncode == 1
    assert re.search(
        r"needs argon2: install airflow-training\[service\]\. \[AT-506\] \[AT-724\]\n=+ short test",
        done.stdout,
    )


def test_a_project_that_does_not_use_it_pays_nothing(project: UserProject) -> None:
    project.write(
        "tests/test_mine.py",
        """
        import sys

        def test_nothing_is_imported():
            here = {name for name in sys.modules if name.split(".")[0] in {"airflow", "airflow_training"}}
            assert here == {"airflow_training", "airflow_training.testing"}
        """,
    )

    done = project.pytest("-W", "error")

    assert done.returncode == 0, done.stdout
    assert not project.home.exists(), "Airflow was not even started"
