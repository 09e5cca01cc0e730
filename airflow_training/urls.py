"""URLs in Airflow's UI: tasks, and the pages of this package."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

from airflow.sdk.configuration import conf

PREFIX = "/training"
"""The path of this package's pages on the api-server."""

TASK_TAB = "training"
"""The tab of each task, in the URLs of Airflow's UI."""


def base_url() -> str:
    """The URL of Airflow's UI, from `[api] base_url`; empty if it is not set."""
    return str(conf.get("api", "base_url", fallback="")).rstrip("/")


def base_path() -> str:
    """The path of that URL, mostly empty."""
    return urlsplit(base_url()).path


def task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The path of a task instance in Airflow's UI, which shows its log first.

    >>> task_path("nightly", "manual__2026-11-26T00:00:00+00:00", "train", 3)
    '/dags/nightly/runs/manual__2026-11-26T00%3A00%3A00%2B00%3A00/tasks/train/mapped/3'
    """
    dag, run, task = (quote(part, safe="") for part in (dag_id, run_id, task_id))
    return f"/dags/{dag}/runs/{run}/tasks/{task}" + (f"/mapped/{map_index}" if map_index >= 0 else "")


def job_path(ref: Mapping[str, object]) -> str:
    """The path of a job's page in Airflow's UI, from a reference to the job."""
    return f"{PREFIX}/job?{urlencode(ref)}"
