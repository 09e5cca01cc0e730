"""Defers tasks of a Dag run in the database of an Airflow, without a worker.

Running a worker process for each of a thousand tasks takes too long on a small machine, and only the triggerer is
measured. So the rows of triggers are added, and those of the task instances changed, by Airflow's own models, as the
API server does for a worker. The Dag is paused, so that the scheduler leaves the run alone.

`python -m benchmarks.parts.deferred_tasks RUN NUMBER KIND`, in the environment of that Airflow, defers the first NUMBER
tasks with the triggers of trainings or with sleeping ones. One more task gets a trigger that measures the loop.
"""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.triggers.base import BaseTrigger
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import delete, select

from airflow_training.following.deadlines import Limits
from airflow_training.triggers.training import TrainingTrigger
from airflow_training.xcom_keys import JOB_ID_KEY
from benchmarks.parts.names import DAG, SLEEPING, TASK
from benchmarks.parts.running_jobs import job_id
from benchmarks.parts.stall import StallTrigger


def triggers(number: int, kind: str) -> list[BaseTrigger]:
    """The triggers of the tasks, and the one that measures the loop."""
    later = datetime.now(timezone.utc) + timedelta(days=1)
    if kind == SLEEPING:
        return [*(DateTimeTrigger(later) for _ in range(number)), StallTrigger()]
    limits = Limits(datetime.now(timezone.utc), deadline=later).to_dict()
    trainings = [TrainingTrigger("training_default", job_id(index), None, limits, False) for index in range(number)]
    return [*trainings, StallTrigger()]


def defer(run_id: str, number: int, kind: str) -> None:
    """Defer the tasks, each with a claim on its job, and undo earlier deferrals."""
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.dag_id == DAG, DagRun.run_id == run_id)).one()
        run.state = DagRunState.RUNNING
        mine = select(TaskInstance).where(TaskInstance.dag_id == DAG, TaskInstance.run_id == run_id)
        tasks = session.scalars(mine.order_by(TaskInstance.map_index)).all()
        for task in tasks:
            task.state, task.trigger_id = None, None
        session.flush()
        session.execute(delete(Trigger))
        session.execute(delete(XComModel).where(XComModel.dag_id == DAG, XComModel.run_id == run_id))
        for task, trigger in zip(tasks, triggers(number, kind), strict=False):
            where: dict[str, Any] = {"dag_id": DAG, "task_id": TASK, "run_id": run_id, "map_index": task.map_index}
            XComModel.set(JOB_ID_KEY, job_id(task.map_index), **where, serialize=False, session=session)
            row = Trigger.from_object(trigger)
            session.add(row)
            session.flush()
            task.state, task.trigger_id = TaskInstanceState.DEFERRED, row.id
            task.start_date, task.try_number = datetime.now(timezone.utc), 1
            task.next_method, task.next_kwargs = "execute_complete", {"claim": {}}


if __name__ == "__main__":
    logging.disable(logging.INFO)
    defer(sys.argv[1], int(sys.argv[2]), sys.argv[3])
