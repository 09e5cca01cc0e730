"""The id of a job, its folder, and a file in it."""

from __future__ import annotations

from uuid import UUID, uuid5

JOB_ID = r"^[A-Za-z0-9-]{1,64}$"
"""The pattern of a job's id."""

INSTALLED_FILE = "requirements.installed.txt"
"""The file in the folder of a job with the packages that it ran with: requirements that make the same environment."""

_NAMESPACE = UUID("6f1d1d4e-9f0a-5c39-9c3c-4a9f6ad6f1a7")


def job_id(dag_id: str, run_id: str, task_id: str, map_index: int, job_number: int) -> str:
    """Derive the id of a task's job.

    The same task instance and job number always give the same id, so that a submit can be repeated
    without making a second job (UUID version 5, RFC 9562).

    >>> job_id("dag", "run", "task", -1, 1) == job_id("dag", "run", "task", -1, 1)
    True
    """
    # A separator that no Airflow id can hold keeps ("a", "b/c") and ("a/b", "c") apart.
    return str(uuid5(_NAMESPACE, "\0".join([dag_id, run_id, task_id, str(map_index), str(job_number)])))


def job_folder(name: str, job_id: str) -> str:
    """The folder of a job in the bucket, without a slash at either end.

    >>> job_folder("census", "0b5c")
    'jobs/census-0b5c'
    """
    return f"jobs/{name}-{job_id}"
