"""The job table: every change of a job's state is one guarded statement here.

A job is PENDING, then claimed by a runner, then RUNNING, then ended. Each statement says which state it leaves,
so that of two changes at once one wins and the other sees that it lost.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, defer, sessionmaker

from airflow_training.api.description import JobDescription
from airflow_training.api.status import JobState, JobStatus
from airflow_training.exceptions import coded
from airflow_training.service.database.models import Job, now
from airflow_training.service.errors import ApiError
from airflow_training.service.runners.runner import JobKey, Order, Progress
from airflow_training.service.scheduling.capacity import Machine
from airflow_training.service.scheduling.changes import Changes
from airflow_training.service.scheduling.queue import Waiting, why_waiting
from airflow_training.service.scheduling.resources import Amount

LONGEST_QUEUE = 10_000
"""Jobs of one tenant that may wait at a time."""

_WAITING = (Job.state == JobState.PENDING) & ~Job.claimed
_CLAIMED = Job.claimed & Job.state.in_([JobState.PENDING, JobState.RUNNING])
# So far the scheduler looks for a job that may start before those ahead of it.
_FAR_ENOUGH = 100


class JobTable:
    """The jobs of all tenants.

    Args:
        sessions: The database.
        machine: What jobs wait for.

    Attributes:
        changes: Where each change is announced.
    """

    def __init__(self, sessions: sessionmaker[Session], machine: Machine) -> None:
        self.changes = Changes()
        self._sessions = sessions
        self._machine = machine
        self._in_doubt: set[JobKey] = set()

    # What tenants ask for

    def submit(self, key: JobKey, description: JobDescription, asked: Amount) -> tuple[JobStatus, bool]:
        """Add a job; returns its status and whether it is new.

        Raises:
            ApiError: The id is taken by a job with another description, or too many jobs of the tenant wait.
        """
        document = json.dumps(description.to_wire(), sort_keys=True)
        job = Job(tenant=key.tenant, id=key.job_id, name=description.name, description=document, **asked._asdict())
        try:
            with self._changing(key) as session:
                mine = select(func.count()).select_from(Job).where(_WAITING, Job.tenant == key.tenant)
                if (session.scalar(mine) or 0) >= LONGEST_QUEUE and not session.get(Job, key):
                    raise ApiError(
                        429,
                        f"{LONGEST_QUEUE} jobs are waiting already: submit again when some have started.",
                        code="AT-613",
                    )
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
            ahead = select(func.count()).select_from(Job).where(*self._in_the_queue, Job.submitted < job.submitted)
            return self._status(job, session.scalar(ahead) or 0 if _waits(job) else 0)

    def asked(self, key: JobKey) -> Amount:
        """What a job asks for; raises what `status` does."""
        with self._sessions() as session:
            return _found(session, key).asked

    def statuses(self, tenant: str, finished: int) -> list[JobStatus]:
        """The jobs of a tenant, in the order of their submission: all that have not ended, the newest of the others.

        Args:
            tenant: Whose.
            finished: How many that have ended at most.
        """
        by_age = (Job.submitted.desc(), Job.id)
        with self._sessions() as session:
            active = session.scalars(select(Job).where(Job.tenant == tenant, Job.finished.is_(None))).all()
            mine = select(Job).where(Job.tenant == tenant, Job.finished.is_not(None))
            ended = session.scalars(mine.order_by(*by_age).limit(finished)).all()
            queue = self._submissions(session)
        # One that ends between the two questions is in both answers.
        jobs = {job.id: job for job in (*active, *ended)}.values()
        return [
            self._status(job, bisect_left(queue, job.submitted) if _waits(job) else 0)
            for job in sorted(jobs, key=lambda job: (job.submitted, job.id))
        ]

    def read(self, keys: Sequence[JobKey]) -> dict[JobKey, tuple[JobStatus, bool]]:
        """The statuses of some jobs of one tenant, and whether they wait; without those that it does not have."""
        mine = select(Job).where(Job.tenant == keys[0].tenant, Job.id.in_([key.job_id for key in keys]))
        with self._sessions() as session:
            # A description may have a megabyte.
            jobs = session.scalars(mine.options(defer(Job.description))).all()
            queue = self._submissions(session) if any(map(_waits, jobs)) else []
        return {
            JobKey(job.tenant, job.id): (
                self._status(job, bisect_left(queue, job.submitted) if _waits(job) else 0),
                _waits(job),
            )
            for job in jobs
        }

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

    def waiting(self) -> Iterator[Waiting]:
        """The jobs that wait and can run on this machine, in the order of their submission; the first hundred."""
        for key in list(self._in_doubt):
            # Nobody began it, so it waits again.
            self._change(key, Job.claimed & (Job.state == JobState.PENDING), claimed=False)
            self._in_doubt.remove(key)
        columns = (Job.tenant, Job.id, Job.cpus, Job.memory, Job.gpus)
        by_age = (Job.submitted, Job.id)
        statement = select(*columns).where(*self._in_the_queue).order_by(*by_age).limit(_FAR_ENOUGH)
        with self._sessions() as session:
            rows = session.execute(statement).all()
        for tenant, job_id, *amount in rows:
            yield Waiting(JobKey(tenant, job_id), Amount(*amount))

    def claimed(self) -> list[Order]:
        """The jobs that a runner has."""
        with self._sessions() as session:
            jobs = session.scalars(select(Job).where(_CLAIMED)).all()
        return [order for job in jobs if (order := self._order(job))]

    def to_be_canceled(self) -> list[JobKey]:
        """The jobs that a runner has and their tenant does not want any more."""
        with self._sessions() as session:
            rows = session.execute(select(Job.tenant, Job.id).where(_CLAIMED, Job.cancel_requested))
            return [JobKey(*row) for row in rows]

    def claim(self, key: JobKey, gpus: Sequence[str]) -> Order | None:
        """Take a waiting job for a runner; None if it was canceled just now.

        Args:
            key: The job.
            gpus: The ids of the graphics processors that it gets.
        """
        values = {"claimed": True, "gpu_ids": ",".join(gpus), "message": "starting"}
        statement = update(Job).where(Job.tenant == key.tenant, Job.id == key.job_id, _WAITING).values(**values)
        try:
            with self._changing(key) as session:
                job = session.scalar(statement.returning(Job))
        except SQLAlchemyError:
            # A connection that ends during a commit does not tell whether it was made.
            self._in_doubt.add(key)
            raise
        return self._order(job) if job else None

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

    # What whoever runs the service asks for

    def answers(self) -> bool:
        """Whether the database can be read."""
        try:
            with self._sessions() as session:
                session.execute(select(1))
        except SQLAlchemyError:
            return False
        return True

    def counts(self) -> dict[JobState, int]:
        """How many jobs there are in each state."""
        with self._sessions() as session:
            rows = session.execute(select(Job.state, func.count()).group_by(Job.state)).tuples().all()
        return dict(rows)

    def names(self) -> dict[JobKey, tuple[str, datetime | None]]:
        """The name of every job, and when it ended."""
        with self._sessions() as session:
            rows = session.execute(select(Job.tenant, Job.id, Job.name, Job.finished))
            return {JobKey(tenant, job_id): (name, finished) for tenant, job_id, name, finished in rows}

    def remove(self, key: JobKey) -> None:
        """Forget a job that has ended."""
        with self._changing(key) as session:
            ended = Job.finished.is_not(None)
            session.execute(delete(Job).where(Job.tenant == key.tenant, Job.id == key.job_id, ended))

    @property
    def _in_the_queue(self) -> tuple[ColumnElement[bool], ...]:
        """The jobs that wait and can run on this machine."""
        return _WAITING, Job.gpus <= self._machine.capacity.gpus

    def _submissions(self, session: Session) -> Sequence[datetime]:
        """When the jobs in the queue were submitted, in order."""
        return session.scalars(select(Job.submitted).where(*self._in_the_queue).order_by(Job.submitted)).all()

    def _change(self, key: JobKey, expected: ColumnElement[bool], **values: object) -> bool:
        statement = update(Job).where(Job.tenant == key.tenant, Job.id == key.job_id, expected).values(**values)
        with self._changing(key) as session:
            return session.scalar(statement.returning(Job.id)) is not None

    @contextmanager
    def _changing(self, key: JobKey) -> Iterator[Session]:
        """A transaction that changes a job: announced once it was made, and where nobody knows whether it was."""
        try:
            with self._sessions.begin() as session:
                yield session
        finally:
            self.changes.announce(key)

    def _order(self, job: Job) -> Order | None:
        """What a runner is told of a job; None, and the job has failed, where an older version took what we do not."""
        key = JobKey(job.tenant, job.id)
        try:
            description = JobDescription.from_wire(json.loads(job.description))
        except ValidationError:
            reason = coded("this version of the service does not take its description: submit it again", code="AT-466")
            self.record(key, Progress(JobState.FAILED, reason, finished=now()))
            return None
        gpus = tuple(filter(None, job.gpu_ids.split(",")))
        return Order(key, description, job.asked, self._machine.granted(job.asked), gpus)

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
                "message": why_waiting(job.asked, ahead, self._machine) if waits else job.message,
            }
        )


def _waits(job: Job) -> bool:
    return job.state is JobState.PENDING and not job.claimed


def _found(session: Session, key: JobKey) -> Job:
    job = session.get(Job, key)
    if not job:
        raise ApiError(404, f"There is no job {key.job_id}: it was not submitted, or has been removed.", code="AT-611")
    return job
