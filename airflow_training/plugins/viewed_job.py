"""The job that a page is about: what Airflow knows of it, and how its service is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, HTTPException

from airflow_training.api.status import JobStatus
from airflow_training.plugins.access import EditableJob, ReadableJob, ReadableLog
from airflow_training.plugins.clients import Service
from airflow_training.plugins.job_owners import owner_of
from airflow_training.plugins.job_refs import JobRef, TaskRef
from airflow_training.plugins.task_instances import Training, training_of
from airflow_training.urls import base_path, task_path


@dataclass(frozen=True)
class KnownJob:
    """A job.

    Attributes:
        ref: How the page names it.
        training: The task whose job it is; None where no task is known.
        service: Where it is asked for; None where there is no job.
        job_id: Its id; empty where there is no job.
    """

    ref: TaskRef | JobRef
    training: Training | None
    service: Service | None
    job_id: str


def _known(ref: TaskRef | JobRef) -> KnownJob:
    if isinstance(ref, JobRef):
        owner = owner_of(ref.job_id)
        training = training_of(owner) if owner else None
        # One that has gone on with another job tells nothing of this one.
        theirs = training if training and training.job_id == ref.job_id else None
        return KnownJob(ref, theirs, Service(ref.conn_id, theirs.version if theirs else None), ref.job_id)
    training = training_of(ref)
    if not training:
        raise HTTPException(404, "There is no such task instance.")
    service = Service(training.conn_id, training.version) if training.job_id else None
    return KnownJob(ref, training, service, training.job_id)


def _readable(ref: ReadableJob) -> KnownJob:
    return _known(ref)


def _log_readable(ref: ReadableLog) -> KnownJob:
    return _known(ref)


def _editable(ref: EditableJob) -> KnownJob:
    return _known(ref)


KnownJobDep = Annotated[KnownJob, Depends(_readable)]
KnownLogDep = Annotated[KnownJob, Depends(_log_readable)]
EditableJobDep = Annotated[KnownJob, Depends(_editable)]


def show_status(status: JobStatus) -> dict[str, Any]:
    """A job as the pages have it."""
    told: Mapping[str, Any] = status.to_wire()
    return {
        "job_id": status.job_id,
        "name": status.name,
        "status": status.state.value,
        "message": status.message,
        "submitted": told["submissionTime"],
        "started": told["startTime"],
        "finished": told["finishTime"],
        "duration": status.duration.total_seconds() if status.duration else None,
    }


def show_task(training: Training) -> dict[str, Any]:
    """A task instance as the pages have it."""
    ref = training.ref
    path = base_path() + task_path(ref.dag_id, ref.run_id, ref.task_id, ref.map_index)
    return {
        **ref.to_dict(),
        "state": training.state,
        "try_number": training.try_number,
        "url": path,
        "log_url": f"{path}?try_number={training.try_number}" if training.try_number else path,
    }
