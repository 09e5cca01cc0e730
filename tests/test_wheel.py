"""The wheel in an environment with Airflow only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")

    def uv(*arguments: object) -> None:
        done = run(sys.executable, "-m", "uv", *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr

    uv("build", "--quiet", "--wheel", "--out-dir", folder / "dist", PROJECT)
    (wheel,) = (folder / "dist").glob("*.whl")
    uv("venv", "--quiet", "--python", sys.executable, folder / "env")
    programs = folder / "env" / "bin"
    constraints = PROJECT / "constraints.txt"
    uv("pip", "install", "--quiet", "--python", programs / "python", "--constraint", constraints, wheel)
    return programs


def test_the_operator_works_without_the_service(installed: Path, tmp_path: Path) -> None:
    program = "import airflow_training.decorators.training, airflow_training.operators.run, airflow_training.local"

    imported = run(installed / "python", "-c", program, cwd=tmp_path)
    service = run(installed / "python", "-c", "import argon2", cwd=tmp_path)

    assert imported.returncode == 0, imported.stderr
    assert "No module named 'argon2'" in service.stderr


@pytest.mark.parametrize("command", [("serve",), ("clients", "list"), ("revoke-tokens",)])
def test_a_command_of_the_service_names_the_extra_that_it_needs(
    installed: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = run(installed / "airflow-training", *command, cwd=tmp_path)

    assert done.returncode == 1, done.stdout
    assert "install airflow-training[service]." in done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_has_the_pages(installed: Path, tmp_path: Path) -> None:
    program = (
        "from importlib.resources import files; pages = files('airflow_training') / 'plugins';"
        "print(sorted(page.name for page in (pages / 'pages').iterdir()), any((pages / 'static').iterdir()))"
    )

    shown = run(installed / "python", "-c", program, cwd=tmp_path)

    assert shown.stdout == "['compare.html', 'job.html', 'jobs.html'] True\n", shown.stderr


def test_the_wheel_has_the_types(installed: Path, tmp_path: Path) -> None:
    program = "from importlib.resources import files; print((files('airflow_training') / 'py.typed').is_file())"

    assert run(installed / "python", "-c", program, cwd=tmp_path).stdout == "True\n"
