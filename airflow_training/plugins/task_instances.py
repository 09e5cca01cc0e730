"""The trainings of tasks in Airflow's database: their XComs and their rendered fields."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from pydantic import ValidationError
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from airflow_training.api.status import JobStatus
from airflow_training.plugins.display import parameter_table, utf8_safe
from airflow_training.plugins.job_refs import TaskRef
from airflow_training.xcom_keys import CLAIM_KEY, CURSOR_KEY, JOB_ID_KEY, RESULT_KEY, STATUS_KEY

_KEYS = (JOB_ID_KEY, CLAIM_KEY, STATUS_KEY, CURSOR_KEY, RESULT_KEY)

NO_JOB_YET = "The task has not submitted a job yet."

# It becomes a part of a path of the job API.
_VERSION = re.compile(r"[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*")

# A template field that only training tasks have.
_TRAINING_FIELD = "training_conn_id"


@dataclass(frozen=True)
class Training:
    """A task instance and its job.

    Attributes:
        ref: The task instance.
        state: Its state.
        try_number: Its try.
        job_id: Its job; empty if it has none.
        conn_id: The connection to the service of the job.
        version: The version of the job API, if it is not the connection's.
        name: The job's name.
        inputs: The names of its input data.
        status: Its last known status.
        location: The location of its model.
        metrics: Its metrics: the final ones, or those logged so far.
        parameters: The task's rendered fields, flattened; Airflow has masked them.
        why_no_job: Why there is no job; empty if there is one.
    """

    ref: TaskRef
    state: str | None
    try_number: int
    job_id: str = ""
    conn_id: str = ""
    version: str | None = None
    name: str = ""
    inputs: Sequence[str] = ()
    status: JobStatus | None = None
    location: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Sequence[tuple[str, str]] = ()
    why_no_job: str = ""


def training_of(ref: TaskRef) -> Training | None:
    """The training of a task; None if there is no such task instance."""
    with create_session(scoped=False) as session:
        found = _trainings([ref], session)
        if not found:
            return None
        (training,) = found
        return training if training.job_id else _without_job(training, session)


def trainings_of(refs: Sequence[TaskRef]) -> list[Training]:
    """The trainings of tasks, in the order of the references; tasks without a job are left out."""
    with create_session(scoped=False) as session:
        return [training for training in _trainings(refs, session) if training.job_id]


def latest_refs(dag_id: str, task_id: str, limit: int) -> list[TaskRef]:
    """The latest task instances of a Dag, or of one of its tasks, that submitted a job: the newest first."""
    where = [XComModel.dag_id == dag_id, XComModel.key == JOB_ID_KEY]
    if task_id:
        where.append(XComModel.task_id == task_id)
    columns = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    newest = select(*columns).where(*where).order_by(XComModel.timestamp.desc(), *columns).limit(limit)
    with create_session(scoped=False) as session:
        return [TaskRef(*row) for row in session.execute(newest)]


def training_tasks(dag_id: str) -> list[str]:
    """The tasks of a Dag that submitted a job."""
    tasks = select(XComModel.task_id).where(XComModel.dag_id == dag_id, XComModel.key == JOB_ID_KEY).distinct()
    with create_session(scoped=False) as session:
        return sorted(session.scalars(tasks))


def _trainings(refs: Sequence[TaskRef], session: Session) -> list[Training]:
    xcoms: dict[TaskRef, dict[str, Any]] = {ref: {} for ref in refs}
    for key, value, *task in session.execute(
        _rows_of(XComModel, (XComModel.key, XComModel.value), refs).where(XComModel.key.in_(_KEYS))
    ):
        xcoms[TaskRef(*task)][key] = value
    fields = {
        TaskRef(*task): rendered
        for rendered, *task in session.execute(
            _rows_of(RenderedTaskInstanceFields, (RenderedTaskInstanceFields.rendered_fields,), refs)
        )
    }
    states = {
        TaskRef(*task): (state, try_number)
        for state, try_number, *task in session.execute(
            _rows_of(TaskInstance, (TaskInstance.state, TaskInstance.try_number), refs)
        )
    }
    return [_training(ref, *states[ref], xcoms[ref], fields.get(ref) or {}) for ref in refs if ref in states]


def _rows_of(table: Any, columns: Sequence[Any], refs: Sequence[TaskRef]) -> Any:
    """Select columns of the rows that belong to task instances, followed by the columns of the reference."""
    key = (table.dag_id, table.run_id, table.task_id, table.map_index)
    wanted = [(ref.dag_id, ref.run_id, ref.task_id, ref.map_index) for ref in refs]
    return select(*columns, *key).where(tuple_(*key).in_(wanted))


def _training(
    ref: TaskRef, state: str | None, try_number: int, xcoms: Mapping[str, Any], rendered: Mapping[str, Any]
) -> Training:
    task = Training(ref, state, try_number, parameters=parameter_table(rendered))
    claim = _of_job(xcoms.get(CLAIM_KEY), None)
    job_id, conn_id, version = str(claim.get("job_id")), claim.get("training_conn_id"), claim.get("version")
    if xcoms.get(JOB_ID_KEY) != job_id or not isinstance(conn_id, str) or not ref.owns(job_id):
        return task
    if version is not None and not _VERSION.fullmatch(str(version)):
        return task
    result = _of_job(xcoms.get(RESULT_KEY), job_id)
    cursor = _of_job(xcoms.get(CURSOR_KEY), job_id)
    inputs = claim.get("inputs")
    return replace(
        task,
        job_id=job_id,
        conn_id=conn_id,
        version=version and str(version),
        name=utf8_safe(str(claim.get("name") or "")),
        inputs=[utf8_safe(str(name)) for name in inputs] if isinstance(inputs, list) else [],
        status=_status(result.get("status")) or _status(_of_job(xcoms.get(STATUS_KEY), job_id)),
        location=utf8_safe(str(result["location"])) if result.get("location") else None,
        metrics=_metrics((result or cursor).get("metrics")),
    )


def _of_job(xcom: Any, job_id: str | None) -> Mapping[str, Any]:
    """An XCom about a job; empty if it is about another job, or was overwritten with something else."""
    valid = isinstance(xcom, dict) and (job_id is None or xcom.get("job_id") == job_id)
    return xcom if valid else {}


def _status(stored: Any) -> JobStatus | None:
    try:
        return JobStatus.model_validate(stored) if stored else None
    except ValidationError:
        return None


def _metrics(stored: Any) -> dict[str, float]:
    if not isinstance(stored, dict):
        return {}
    numbers = {name: value for name, value in stored.items() if isinstance(value, (int, float))}
    # JSON has finite numbers only.
    return {utf8_safe(str(name)): value for name, value in numbers.items() if abs(value) < math.inf}


def _without_job(training: Training, session: Session) -> Training:
    is_training = any(name == _TRAINING_FIELD for name, _ in training.parameters) or _is_training(training.ref, session)
    reason = NO_JOB_YET if is_training else f"The task {training.ref.task_id} is not a training task."
    return replace(training, parameters=training.parameters if is_training else (), why_no_job=reason)


def _is_training(ref: TaskRef, session: Session) -> bool:
    """Whether the task in the latest version of the Dag has the template fields of a training task."""
    dag = SerializedDagModel.get(ref.dag_id, session=session)
    tasks = ((dag.data or {}).get("dag", {}).get("tasks", [])) if dag else []
    for task in (entry.get("__var", {}) for entry in tasks):
        if task.get("task_id") == ref.task_id:
            return _TRAINING_FIELD in (task.get("template_fields") or ())
    return False
