"""The plugin as every process of Airflow loads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# The modules that the plugin imports in addition to Airflow's plugin manager.
PROGRAM = """
import json, sys
import airflow.sdk.plugins_manager
before = set(sys.modules)
from airflow_training.plugins.training import TrainingPlugin
views = {view["destination"]: view["href"] for view in TrainingPlugin.external_views}
print(json.dumps([sorted(set(sys.modules) - before), views]))
"""


def loaded(**environment: str) -> tuple[list[str], dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    modules, views = json.loads(done.stdout.splitlines()[-1])
    return modules, views


def test_a_process_that_loads_it_imports_next_to_nothing() -> None:
    modules, _ = loaded()

    assert modules == [
        "airflow_training.plugins",
        "airflow_training.plugins.training",
        "airflow_training.urls",
    ]


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("http://localhost:8080", ""),
        ("https://example.com/airflow", "/airflow"),
        ("https://example.com/a/b/", "/a/b"),
        ("", ""),
    ],
)
def test_the_pages_are_below_airflows_base_url(base_url: str, path: str) -> None:
    _, views = loaded(AIRFLOW__API__BASE_URL=base_url)

    assert views["nav"] == f"{path}/training/jobs"
    assert views["dag"] == f"{path}/training/compare?dag_id={{DAG_ID}}"
    assert views["task_instance"].startswith(f"{path}/training/job?dag_id={{DAG_ID}}&run_id={{RUN_ID}}&")
