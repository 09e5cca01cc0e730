"""The job table: every change of a job's state is one guarded statement here.

A job is PENDING, then claimed by a runner, then RUNNING, then ended. Each statement says which state it leaves,
so of two concurrent changes one wins and the other sees that it lost.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, defer, sessionmaker

from airflow_training.api.description import JobDescription
from airflow_training.api.resources import Resources
from airflow_training.api.status import JobState, JobStatus
from airflow_training.exceptions import coded
from airflow_training.service.database.models import Job, now
from airflow_training.service.errors import ApiError
from airflow_training.service.scheduling.capacity import Capacity
from airflow_training.service.scheduling.changes import Changes
from airflow_training.service.scheduling.job import JobKey, Order, Progress
from airflow_training.service.scheduling.queue import QueuedJob, why_waiting

MAX_QUEUE = 10_000
"""The number of jobs of one tenant that may wait at a time."""

_WAITING = (Job.state == JobState.PENDING) & ~Job.claimed
_CLAIMED = Job.claimed & Job.state.in_([JobState.PENDING, JobState.RUNNING])
# The number of waiting jobs among which the scheduler looks for one that may start.
_QUEUE_WINDOW = 100


class StoredJob(NamedTuple):
    """A job as it was submitted.

    Attributes:
        description: Its description, with its secrets.
        requested: The resources that it requests.
        began: Whether its command has started.
    """

    description: JobDescription
    requested: Resources
    began: bool


class JobTable:
    """The jobs of all tenants.

    Args:
        sessions: The database.
        capacity: The resources that jobs wait for.

    Attributes:
        changes: Publishes each change.
    """

    def __init__(self, sessions: sessionmaker[Session], capacity: Capacity) -> None:
        self.changes = Changes()
        self._sessions = sessions
        self._capacity = capacity
        self._in_doubt: set[JobKey] = set()

    # For clients

    def submit(self, key: JobKey, description: JobDescription, requested: Resources) -> tuple[JobStatus, bool]:
        """Add a job; returns its status and whether it is new.

        Raises:
            ApiError: The id is taken by a job with another description, or too many jobs of the tenant wait.
        """
        document = json.dumps(description.to_wire(), sort_keys=True)
        job = Job(tenant=key.tenant, id=key.job_id, name=description.name, description=document, **asdict(requested))
        try:
            with self._changing(key) as session:
                _check_queue(session, key)
                session.add(job)
        except IntegrityError:
            with self._sessions() as session:
                there = session.get_one(Job, key)
            if there.description != document:
                raise ApiError(
                    409,
                    f"The id {key.job_id} is taken by a job with another description: submit with a new id.",
                    code="AT-612",
                ) from None
            return self.status(key), False
        return self.status(key), True

    def status(self, key: JobKey) -> JobStatus:
        """The status of a job.

        Raises:
            ApiError: The tenant has no such job.
        """
        with self._sessions() as session:
            job = _found(session, key)
            ahead = select(func.count()).select_from(Job).where(*self._queued, Job.submitted < job.submitted)
            return self._status(job, session.scalar(ahead) or 0 if _waits(job) else 0)

    def requested(self, key: JobKey) -> Resources:
        """The resources that a job requests; raises what `status` does."""
        with self._sessions() as session:
            return _found(session, key).requested

    def stored(self, key: JobKey) -> StoredJob:
        """A job as it was submitted.

        Raises:
            ApiError: The tenant has no such job, or this version does not accept the job's description.
        """
        with self._sessions() as session:
            job = _found(session, key)
        try:
            description = JobDescription.from_wire(json.loads(job.description))
        except ValidationError:
            raise ApiError(
                409,
                f"This version of the service cannot read the description of the job {key.job_id}: submit it again.",
                code="AT-670",
            ) from None
        return StoredJob(description, job.requested, job.started is not None)

    def exists(self, key: JobKey) -> bool:
        """Whether the tenant has a job."""
        with self._sessions() as session:
            mine = select(Job.id).where(Job.tenant == key.tenant, Job.id == key.job_id)
            return session.scalar(mine) is not None

    def check_queue(self, key: JobKey) -> None:
        """Raise ApiError if a job could not be submitted now, since too many jobs of the tenant wait."""
        with self._sessions() as session:
            _check_queue(session, key)

    def statuses(self, tenant: str, finished: int) -> list[JobStatus]:
        """The jobs of a tenant by submission time: all that have not ended, and the latest of the others.

        Args:
            tenant: The tenant.
            finished: The maximum number of jobs that have ended.
        """
        by_age = (Job.submitted.desc(), Job.id)
        with self._sessions() as session:
            active = session.scalars(select(Job).where(Job.tenant == tenant, Job.finished.is_(None))).all()
            mine = select(Job).where(Job.tenant == tenant, Job.finished.is_not(None))
            ended = session.scalars(mine.order_by(*by_age).limit(finished)).all()
            queue = self._submission_times(session)
        # A job that ends between the two queries is in both results.
        jobs = {job.id: job for job in (*active, *ended)}.values()
        return [
            self._status(job, bisect_left(queue, job.submitted))
            for job in sorted(jobs, key=lambda job: (job.submitted, job.id))
        ]

    def read(self, keys: Sequence[JobKey]) -> dict[JobKey, tuple[JobStatus, bool]]:
        """The statuses of jobs of one tenant, and whether they wait; without jobs that it does not have."""
        mine = select(Job).where(Job.tenant == keys[0].tenant, Job.id.in_([key.job_id for key in keys]))
        with self._sessions() as session:
            # A description may have a megabyte.
            jobs = session.scalars(mine.options(defer(Job.description))).all()
            queue = self._submission_times(session) if any(map(_waits, jobs)) else []
        return {
            JobKey(job.tenant, job.id): (self._status(job, bisect_left(queue, job.submitted)), _waits(job))
            for job in jobs
        }

    def cancel(self, key: JobKey) -> None:
        """End a job: at once if nothing of it runs yet, else by its runner. No effect on a job that has ended.

        Raises:
            ApiError: The tenant has no such job.
        """
        never_ran = {"state": JobState.CANCELED, "finished": now(), "message": "canceled before it started"}
        if not self._change(key, _WAITING, **never_ran):
            self._change(key, _CLAIMED, cancel_requested=True)
        self.status(key)

    # For the scheduler

    def queue(self) -> Iterator[QueuedJob]:
        """The first hundred jobs that wait and can run on this machine, by submission time."""
        for key in list(self._in_doubt):
            # Nothing started it, so it waits again.
            self._change(key, Job.claimed & (Job.state == JobState.PENDING), claimed=False)
            self._in_doubt.remove(key)
        columns = (Job.tenant, Job.id, Job.cpus, Job.memory, Job.gpus)
        by_age = (Job.submitted, Job.id)
        statement = select(*columns).where(*self._queued).order_by(*by_age).limit(_QUEUE_WINDOW)
        with self._sessions() as session:
            rows = session.execute(statement).all()
        for tenant, job_id, *resources in rows:
            yield QueuedJob(JobKey(tenant, job_id), Resources(*resources))

    def claimed(self) -> list[Order]:
        """The jobs that the runner has."""
        with self._sessions() as session:
            jobs = session.scalars(select(Job).where(_CLAIMED)).all()
        return [order for job in jobs if (order := self._order(job))]

    def to_be_canceled(self) -> list[JobKey]:
        """The claimed jobs whose cancellation is requested."""
        with self._sessions() as session:
            rows = session.execute(select(Job.tenant, Job.id).where(_CLAIMED, Job.cancel_requested))
            return [JobKey(*row) for row in rows]

    def claim(self, key: JobKey, gpus: Sequence[str]) -> Order | None:
        """Claim a waiting job for the runner; None if it was canceled meanwhile.

        Args:
            key: The job.
            gpus: The ids of the GPUs that are allocated to it.
        """
        values = {"claimed": True, "gpu_ids": ",".join(gpus), "message": "starting"}
        statement = update(Job).where(Job.tenant == key.tenant, Job.id == key.job_id, _WAITING).values(**values)
        try:
            with self._changing(key) as session:
                job = session.scalar(statement.returning(Job))
        except SQLAlchemyError:
            # If the connection is lost during the commit, the outcome is unknown.
            self._in_doubt.add(key)
            raise
        return self._order(job) if job else None

    def record(self, key: JobKey, progress: Progress) -> None:
        """Record the progress of a job."""
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

    # For the administrator

    def responds(self) -> bool:
        """Whether the database can be read."""
        try:
            with self._sessions() as session:
                session.execute(select(1))
        except SQLAlchemyError:
            return False
        return True

    def counts(self) -> dict[JobState, int]:
        """The number of jobs in each state."""
        with self._sessions() as session:
            rows = session.execute(select(Job.state, func.count()).group_by(Job.state)).tuples().all()
        return dict(rows)

    def names(self) -> dict[JobKey, tuple[str, datetime | None]]:
        """The name of each job, and when it ended."""
        with self._sessions() as session:
            rows = session.execute(select(Job.tenant, Job.id, Job.name, Job.finished))
            return {JobKey(tenant, job_id): (name, finished) for tenant, job_id, name, finished in rows}

    def remove(self, key: JobKey) -> None:
        """Delete a job that has ended."""
        with self._changing(key) as session:
            ended = Job.finished.is_not(None)
            session.execute(delete(Job).where(Job.tenant == key.tenant, Job.id == key.job_id, ended))

    @property
    def _queued(self) -> tuple[ColumnElement[bool], ...]:
        """The condition of jobs that wait and can run on this machine."""
        return _WAITING, Job.gpus <= self._capacity.total.gpus

    def _submission_times(self, session: Session) -> Sequence[datetime]:
        """The submission times of the queue, in order."""
        return session.scalars(select(Job.submitted).where(*self._queued).order_by(Job.submitted)).all()

    def _change(self, key: JobKey, expected: ColumnElement[bool], **values: object) -> bool:
        statement = update(Job).where(Job.tenant == key.tenant, Job.id == key.job_id, expected).values(**values)
        with self._changing(key) as session:
            return session.scalar(statement.returning(Job.id)) is not None

    @contextmanager
    def _changing(self, key: JobKey) -> Iterator[Session]:
        """A transaction that changes a job; published after the commit, also if its outcome is unknown."""
        try:
            with self._sessions.begin() as session:
                yield session
        finally:
            self.changes.publish(key)

    def _order(self, job: Job) -> Order | None:
        """The order for the runner; if this version rejects the stored description, the job fails and there is none."""
        key = JobKey(job.tenant, job.id)
        try:
            description = JobDescription.from_wire(json.loads(job.description))
        except ValidationError:
            reason = coded(
                "this version of the service does not accept the job's description: submit it again", code="AT-466"
            )
            self.record(key, Progress(JobState.FAILED, reason, finished=now()))
            return None
        gpus = tuple(filter(None, job.gpu_ids.split(",")))
        return Order(key, description, job.requested, self._capacity.allocation(job.requested), gpus)

    def _status(self, job: Job, ahead: int) -> JobStatus:
        waits = _waits(job)
        return JobStatus.model_validate(
            {
                "job_id": job.id,
                "name": job.name,
                "container_id": job.container_id,
                "state": job.state.value,
                "submission_time": job.submitted,
                "start_time": job.started,
                "finish_time": job.finished,
                "message": why_waiting(job.requested, ahead, self._capacity) if waits else job.message,
            }
        )


def _waits(job: Job) -> bool:
    return job.state is JobState.PENDING and not job.claimed


def _check_queue(session: Session, key: JobKey) -> None:
    mine = select(func.count()).select_from(Job).where(_WAITING, Job.tenant == key.tenant)
    if (session.scalar(mine) or 0) >= MAX_QUEUE and not session.get(Job, key):
        raise ApiError(
            429, f"{MAX_QUEUE} jobs are waiting already: submit again when some have started.", code="AT-613"
        )


def _found(session: Session, key: JobKey) -> Job:
    job = session.get(Job, key)
    if not job:
        raise ApiError(404, f"There is no job {key.job_id}: it was not submitted, or has been removed.", code="AT-611")
    return job
