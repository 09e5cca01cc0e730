"""The cost of a Dag file, which Airflow parses every half minute or so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DAGS = sorted((Path(__file__).parent.parent / "dags").glob("*.py"))

EMPTY = """
from airflow.sdk import DAG, task
with DAG("empty", schedule=None):
    task(lambda: None)
"""
NOTHING_OF = {
    "aiohttp",
    "fastapi",
    "fsspec",
    "obstore",
    "oauthlib",
    "openlineage",
    "ray",
    "requests",
    "tensorflow",
    "upath",
}


def modules(program: str) -> set[str]:
    """The modules that a program imports."""
    script = f"{program}\nimport json, sys\nprint('modules', json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("modules ")]
    return set(json.loads(line.removeprefix("modules ")))


@pytest.fixture(scope="module")
def of_an_empty_dag() -> set[str]:
    return modules(EMPTY)


@pytest.mark.parametrize("file", DAGS, ids=lambda file: file.stem)
def test_a_dag_file_imports_hardly_more_than_an_empty_one(file: Path, of_an_empty_dag: set[str]) -> None:
    imported = modules(f"import runpy\nrunpy.run_path({str(file)!r})") - of_an_empty_dag

    assert not {name.split(".")[0] for name in imported} & NOTHING_OF
    assert len(imported) / len(of_an_empty_dag) < 0.02
