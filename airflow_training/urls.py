"""Where things are in Airflow's UI: tasks, and the pages of this package."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

from airflow.sdk.configuration import conf

PREFIX = "/training"
"""Where the api-server has the pages of this package."""

TASK_TAB = "training"
"""The name of the tab that each task has, in the addresses of Airflow's UI."""


def base_url() -> str:
    """The address of Airflow's UI, as `[api] base_url` has it; empty where it is not told."""
    return str(conf.get("api", "base_url", fallback="")).rstrip("/")


def base_path() -> str:
    """The path of that address, mostly none."""
    return urlsplit(base_url()).path


def task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The path of a task instance below the address of Airflow's UI; the first that is there is its log.

    >>> task_path("nightly", "manual__2026-11-26T00:00:00+00:00", "train", 3)
    '/dags/nightly/runs/manual__2026-11-26T00%3A00%3A00%2B00%3A00/tasks/train/mapped/3'
    """
    dag, run, task = (quote(part, safe="") for part in (dag_id, run_id, task_id))
    return f"/dags/{dag}/runs/{run}/tasks/{task}" + (f"/mapped/{map_index}" if map_index >= 0 else "")


def job_path(ref: Mapping[str, object]) -> str:
    """The path of the page of the job that a reference names, below the address of Airflow's UI."""
    return f"{PREFIX}/job?{urlencode(ref)}"
