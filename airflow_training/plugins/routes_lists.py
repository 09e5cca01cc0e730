"""What the pages ask for that show many jobs: the trainings of a Dag side by side, and all jobs of a connection."""

from __future__ import annotations

import json
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.concurrency import run_in_threadpool

from airflow_training.api.status import JobStatus
from airflow_training.client.client import TrainingClient
from airflow_training.plugins.access import Rights, RightsDep
from airflow_training.plugins.clients import Service
from airflow_training.plugins.deployments import deployed_locations
from airflow_training.plugins.display import told_to
from airflow_training.plugins.gateway import Answer, asking
from airflow_training.plugins.job_owners import owners_of
from airflow_training.plugins.job_refs import InvalidRef, TaskRef, optional, task_ref, text
from airflow_training.plugins.run_labels import labels
from airflow_training.plugins.task_instances import Training, latest, training_tasks, trainings_of
from airflow_training.plugins.viewed_job import show_status
from airflow_training.plugins.visible_connections import readable_connections
from airflow_training.urls import base_path, job_path

router = APIRouter()

_MOST_CHOSEN = 50
_MOST_JOBS = 1000
# Seconds for which a list is given out again: it is long.
_FRESH = 5.0
_FORBIDDEN = "You may not do this: it needs Airflow's right to the Dag or the connection."


def _wanted(
    request: Request, rights: RightsDep, limit: int = Query(25, ge=1, le=100)
) -> tuple[list[str], list[Training]]:
    """The training tasks of the Dag, and the trainings that were asked for."""
    chosen = request.query_params.getlist("ti")
    if not chosen:
        dag_id, task_id = text(request.query_params, "dag_id"), optional(request.query_params, "task_id")
        if not rights.dag(dag_id):
            raise HTTPException(403, _FORBIDDEN)
        return training_tasks(dag_id), trainings_of(latest(dag_id, task_id, limit))
    if len(chosen) > _MOST_CHOSEN:
        raise InvalidRef(f"No more than {_MOST_CHOSEN} trainings can be compared.")
    refs = [task_ref(_json(given)) for given in chosen]
    if not all(rights.dag(dag_id) for dag_id in {ref.dag_id for ref in refs}):
        raise HTTPException(403, _FORBIDDEN)
    return sorted({ref.task_id for ref in refs}), trainings_of(list(dict.fromkeys(refs)))


def _json(given: str) -> Any:
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        raise InvalidRef("ti must be JSON.") from None


@router.get("/trainings")
async def trainings(
    wanted: Annotated[tuple[list[str], list[Training]], Depends(_wanted)], rights: RightsDep
) -> dict[str, Any]:
    """Trainings side by side, the newest first."""
    tasks, found = wanted
    named = labels([training.ref for training in found])
    served = await run_in_threadpool(deployed_locations)
    running = {Service(task.conn_id, task.version) for task in found if not _ended(task.status)}
    answers = {service: await told_to(rights, service, await _all_jobs(service)) for service in running}
    shown = []
    for training in found:
        answer = answers.get(Service(training.conn_id, training.version))
        status = _of_all(answer, training.job_id) or training.status
        ref = training.ref.to_dict()
        shown.append({
            "ref": ref,
            "label": named[training.ref],
            "job_id": training.job_id,
            "name": status.name if status else training.name,
            "status": status.state.value if status else "UNKNOWN",
            "submitted": show_status(status)["submitted"] if status else None,
            "duration": show_status(status)["duration"] if status else None,
            "metrics": dict(training.metrics),
            "parameters": dict(training.parameters),
            "deployed": training.location is not None and training.location in served,
            "url": base_path() + job_path(ref),
        })  # fmt: skip
    unreachable = next((answer for answer in answers.values() if not answer.reachable), None)
    service = unreachable or next(iter(answers.values()), None)
    return {"tasks": tasks, "trainings": shown, "service": service.to_dict() if service else None}


def _connections(request: Request, user: GetUserDep, rights: RightsDep) -> tuple[list[str], str]:
    """The connections that the user may read, and the one that was asked for."""
    asked = optional(request.query_params, "conn_id")
    if asked and not rights.connection(asked):
        raise HTTPException(403, _FORBIDDEN)
    readable = readable_connections(user, rights)
    return readable, asked or (readable[0] if readable else "")


@router.get("/jobs")
async def jobs(
    connections: Annotated[tuple[list[str], str], Depends(_connections)], rights: RightsDep
) -> dict[str, Any]:
    """All jobs of a connection that the user may see, the newest first."""
    names, conn_id = connections
    if not conn_id:
        return {"connections": [], "connection": "", "jobs": [], "left_out": 0, "service": None}
    answer = await _all_jobs(Service(conn_id))
    newest = answer.value or []
    owners = await run_in_threadpool(_readable_owners, [job.job_id for job in newest], rights)
    shown = [_show_job(conn_id, job, owners.get(job.job_id)) for job in newest if owners.get(job.job_id) != _HIDDEN]
    return {
        "connections": names,
        "connection": conn_id,
        "jobs": shown,
        "left_out": len(newest) - len(shown),
        "service": answer.to_dict(),
    }


# Stands for a task of a Dag that the user may not read.
_HIDDEN = TaskRef("", "", "")


def _readable_owners(job_ids: list[str], rights: Rights) -> dict[str, TaskRef]:
    owners = owners_of(job_ids)
    readable = {dag_id for dag_id in {owner.dag_id for owner in owners.values()} if rights.dag(dag_id)}
    return {job_id: owner if owner.dag_id in readable else _HIDDEN for job_id, owner in owners.items()}


def _show_job(conn_id: str, job: JobStatus, owner: TaskRef | None) -> dict[str, Any]:
    ref = owner.to_dict() if owner else {"conn_id": conn_id, "job_id": job.job_id}
    return {**show_status(job), "task": owner.to_dict() if owner else None, "url": base_path() + job_path(ref)}


async def _all_jobs(service: Service) -> Answer[list[JobStatus]]:
    """The newest jobs of a service; more of them are shown to nobody."""

    async def newest(client: TrainingClient) -> list[JobStatus]:
        jobs = await client.jobs(finished=_MOST_JOBS)
        return sorted(jobs, key=lambda job: str(job.submission_time), reverse=True)[:_MOST_JOBS]

    return await asking.get().ask(service, "jobs", "", newest, fresh=_FRESH)


def _of_all(answer: Answer[list[JobStatus]] | None, job_id: str) -> JobStatus | None:
    return next((job for job in (answer.value if answer else None) or [] if job.job_id == job_id), None)


def _ended(status: JobStatus | None) -> bool:
    return status is not None and status.state.ended
