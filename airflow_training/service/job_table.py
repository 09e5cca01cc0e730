"""The job table: every change of a job's state is one guarded statement here.

A job is PENDING, then claimed by a runner, then RUNNING, then ended. Each statement says which state it leaves,
so that of two changes at once one wins and the other sees that it lost.
"""

from __future__ import annotations

import json
from bisect import bisect_left

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from airflow_training.jobs.description import JobDescription
from airflow_training.jobs.status import JobState, JobStatus
from airflow_training.service.database import Job, now
from airflow_training.service.errors import ApiError
from airflow_training.service.runners.runner import JobKey, Order, Progress

_WAITING = (Job.state == JobState.PENDING) & ~Job.claimed
_CLAIMED = Job.claimed & Job.state.in_([JobState.PENDING, JobState.RUNNING])


class JobTable:
    """The jobs of all tenants.

    Args:
        sessions: The database.
        cpus: What the machine has, to tell a waiting job what it waits for.
    """

    def __init__(self, sessions: sessionmaker[Session], cpus: int) -> None:
        self._sessions = sessions
        self._cpus = cpus

    # What tenants ask for

    def submit(self, key: JobKey, description: JobDescription) -> tuple[JobStatus, bool]:
        """Add a job; returns its status and whether it is new.

        Raises:
            ApiError: The id is taken by a job with another description.
        """
        document = json.dumps(description.to_wire(), sort_keys=True)
        job = Job(tenant=key.tenant, id=key.job_id, name=description.name, description=document)
        try:
            with self._sessions.begin() as session:
                session.add(job)
        except IntegrityError:
            with self._sessions() as session:
                there = session.get_one(Job, key)
            if there.description != document:
                raise ApiError(
                    409, f"The id {key.job_id} is taken by a job with another description: submit with a new id."
                ) from None
            return self.status(key), False
        return self.status(key), True

    def status(self, key: JobKey) -> JobStatus:
        """The status of a job.

        Raises:
            ApiError: The tenant has no such job.
        """
        with self._sessions() as session:
            job = session.get(Job, key)
            if not job:
                raise ApiError(404, f"There is no job {key.job_id}: it was not submitted, or has been removed.")
            ahead = select(func.count()).select_from(Job).where(_WAITING, Job.submitted < job.submitted)
            return self._status(job, session.scalar(ahead) or 0 if _waits(job) else 0)

    def statuses(self, tenant: str) -> list[JobStatus]:
        """The status of every job of a tenant, in the order of their submission."""
        with self._sessions() as session:
            jobs = session.scalars(select(Job).where(Job.tenant == tenant).order_by(Job.submitted)).all()
            queue = session.scalars(select(Job.submitted).where(_WAITING).order_by(Job.submitted)).all()
        return [self._status(job, bisect_left(queue, job.submitted) if _waits(job) else 0) for job in jobs]

    def cancel(self, key: JobKey) -> None:
        """End a job: at once where nothing runs yet, else by its runner. What has ended stays as it is.

        Raises:
            ApiError: The tenant has no such job.
        """
        never_ran = {"state": JobState.CANCELED, "finished": now(), "message": "canceled before it started"}
        if not self._change(key, _WAITING, **never_ran):
            self._change(key, _CLAIMED, cancel_requested=True)
        self.status(key)

    # What the scheduler asks for

    def next_waiting(self) -> Order | None:
        """The job that has been waiting for longest."""
        with self._sessions() as session:
            job = session.scalar(select(Job).where(_WAITING).order_by(Job.submitted, Job.id).limit(1))
        return _order(job) if job else None

    def claimed(self) -> list[Order]:
        """The jobs that a runner has."""
        with self._sessions() as session:
            return [_order(job) for job in session.scalars(select(Job).where(_CLAIMED))]

    def to_be_canceled(self) -> list[JobKey]:
        """The jobs that a runner has and their tenant does not want any more."""
        with self._sessions() as session:
            rows = session.execute(select(Job.tenant, Job.id).where(_CLAIMED, Job.cancel_requested))
            return [JobKey(*row) for row in rows]

    def claim(self, key: JobKey) -> bool:
        """Take a waiting job for a runner; False if it was canceled just now."""
        return self._change(key, _WAITING, claimed=True, message="starting")

    def record(self, key: JobKey, progress: Progress) -> None:
        """Write down how far the runner is with a job."""
        self._change(
            key,
            _CLAIMED,
            state=progress.state,
            container_id=progress.container_id,
            started=progress.started,
            finished=progress.finished,
            exit_code=progress.exit_code,
            message=progress.message,
        )

    def _change(self, key: JobKey, expected: ColumnElement[bool], **values: object) -> bool:
        statement = update(Job).where(Job.tenant == key.tenant, Job.id == key.job_id, expected).values(**values)
        with self._sessions.begin() as session:
            return session.scalar(statement.returning(Job.id)) is not None

    def _status(self, job: Job, ahead: int) -> JobStatus:
        message = job.message
        if _waits(job):
            wanted = _order(job).cpus
            jobs = "1 job" if ahead == 1 else f"{ahead} jobs"
            message = f"waiting for {wanted} of {self._cpus} cpus, {jobs} ahead"
        return JobStatus.model_validate(
            {
                "job_id": job.id,
                "name": job.name,
                "container_id": job.container_id,
                "state": job.state.value,
                "submission_time": job.submitted,
                "start_time": job.started,
                "finish_time": job.finished,
                "message": message,
            }
        )


def _waits(job: Job) -> bool:
    return job.state is JobState.PENDING and not job.claimed


def _order(job: Job) -> Order:
    description = JobDescription.from_wire(json.loads(job.description))
    return Order(JobKey(job.tenant, job.id), description)
