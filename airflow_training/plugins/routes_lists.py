"""The JSON API of the pages that show many jobs: the trainings of a Dag compared, and all jobs of a connection."""

from __future__ import annotations

import json
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.concurrency import run_in_threadpool

from airflow_training.api.status import JobStatus
from airflow_training.client.client import TrainingClient
from airflow_training.plugins.access import Rights, RightsDep, readable_connections
from airflow_training.plugins.deployments import deployed_locations
from airflow_training.plugins.display import run_labels, show_status
from airflow_training.plugins.gateway import Answer, ServiceRef, gateway, visible_to
from airflow_training.plugins.job_owners import owners_of
from airflow_training.plugins.job_refs import InvalidRef, TaskRef, optional, read_task_ref, required
from airflow_training.plugins.task_instances import Training, latest_refs, training_tasks, trainings_of
from airflow_training.urls import base_path, job_path

router = APIRouter()

_MAX_SELECTED = 50
_MAX_JOBS = 1000
# Seconds for which a list is reused, since it is long.
_FRESH = 5.0
_FORBIDDEN = "You need Airflow's permission for the Dag or the connection."


def _selected(
    request: Request, rights: RightsDep, limit: int = Query(25, ge=1, le=100)
) -> tuple[list[str], list[Training]]:
    """The training tasks of the Dag, and the selected trainings."""
    selected = request.query_params.getlist("ti")
    if not selected:
        dag_id, task_id = required(request.query_params, "dag_id"), optional(request.query_params, "task_id")
        if not rights.dag(dag_id):
            raise HTTPException(403, _FORBIDDEN)
        return training_tasks(dag_id), trainings_of(latest_refs(dag_id, task_id, limit))
    if len(selected) > _MAX_SELECTED:
        raise InvalidRef(f"At most {_MAX_SELECTED} trainings can be compared.")
    refs = [read_task_ref(_json(given)) for given in selected]
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
    selected: Annotated[tuple[list[str], list[Training]], Depends(_selected)], rights: RightsDep
) -> dict[str, Any]:
    """Trainings to compare, the newest first."""
    tasks, found = selected
    labels = run_labels([training.ref for training in found])
    deployed = await run_in_threadpool(deployed_locations)
    running = {
        ServiceRef(task.conn_id, task.version) for task in found if not (task.status and task.status.state.ended)
    }
    answers = {service: await visible_to(rights, service, await _all_jobs(service)) for service in running}
    shown = []
    for training in found:
        answer = answers.get(ServiceRef(training.conn_id, training.version))
        status = _status_in(answer, training.job_id) or training.status
        ref = training.ref.to_dict()
        shown.append({
            "ref": ref,
            "label": labels[training.ref],
            "job_id": training.job_id,
            "name": status.name if status else training.name,
            "status": status.state.value if status else "UNKNOWN",
            "submitted": show_status(status)["submitted"] if status else None,
            "duration": show_status(status)["duration"] if status else None,
            "metrics": dict(training.metrics),
            "parameters": dict(training.parameters),
            "deployed": training.location is not None and training.location in deployed,
            "url": base_path() + job_path(ref),
        })  # fmt: skip
    unreachable = next((answer for answer in answers.values() if not answer.reachable), None)
    service = unreachable or next(iter(answers.values()), None)
    return {"tasks": tasks, "trainings": shown, "service": service.to_dict() if service else None}


def _connections(request: Request, user: GetUserDep, rights: RightsDep) -> tuple[list[str], str]:
    """The connections that the user may read, and the requested one."""
    requested = optional(request.query_params, "conn_id")
    if requested and not rights.connection(requested):
        raise HTTPException(403, _FORBIDDEN)
    readable = readable_connections(user, rights)
    return readable, requested or (readable[0] if readable else "")


@router.get("/jobs")
async def jobs(
    connections: Annotated[tuple[list[str], str], Depends(_connections)], rights: RightsDep
) -> dict[str, Any]:
    """All jobs of a connection that the user may see, the newest first."""
    names, conn_id = connections
    if not conn_id:
        return {"connections": [], "connection": "", "jobs": [], "left_out": 0, "service": None}
    answer = await _all_jobs(ServiceRef(conn_id))
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


async def _all_jobs(service: ServiceRef) -> Answer[list[JobStatus]]:
    """The newest jobs of a service; older ones are not shown."""

    async def newest(client: TrainingClient) -> list[JobStatus]:
        jobs = await client.jobs(finished=_MAX_JOBS)
        return sorted(jobs, key=lambda job: str(job.submission_time), reverse=True)[:_MAX_JOBS]

    return await gateway.get().ask(service, "jobs", "", newest, fresh=_FRESH)


def _status_in(answer: Answer[list[JobStatus]] | None, job_id: str) -> JobStatus | None:
    return next((job for job in (answer.value if answer else None) or [] if job.job_id == job_id), None)
