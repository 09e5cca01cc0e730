"""The JSON API of the job page."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from airflow_training.api.status import JobState, JobStatus
from airflow_training.client.client import TrainingClient
from airflow_training.plugins.access import EditableJob, ReadableJob, ReadableLog, Rights, RightsDep, ViewedJob
from airflow_training.plugins.display import show_status, show_task
from airflow_training.plugins.gateway import STATUS, Answer, ServiceRef, gateway, visible_to
from airflow_training.plugins.job_refs import JobRef, optional
from airflow_training.plugins.log_tails import tails

router = APIRouter()

_LOST = "The training service no longer knows the job."
_NOT_ASKED = {"reachable": True, "message": "", "since": None}
_NO_LINES = {"records": [], "next": 1, "skipped": False, "ended": False, "tail": "", "reset": False}


@router.get("/job")
async def job(viewed: ReadableJob, rights: RightsDep) -> dict[str, Any]:
    """The status of the job, and its task."""
    answer = await _status(viewed.service, viewed.job_id) if viewed.service else None
    if isinstance(viewed.ref, JobRef) and answer and _is_unknown(answer):
        raise HTTPException(404, f"The training service does not know the job {viewed.job_id}.")
    training = viewed.training
    status = _latest(viewed, answer)
    goes_on = bool(status and not status.state.ended and not (answer and _is_unknown(answer)))
    return {
        "task": show_task(training) if training else None,
        "connection": viewed.service.conn_id if viewed.service else None,
        "job": show_status(status) if status else None,
        "why_no_job": training.why_no_job if training else "",
        "location": training.location if training else None,
        "metrics": dict(training.metrics) if training else {},
        "parameters": list(training.parameters) if training else [],
        "inputs": list(training.inputs) if training else [],
        "may_cancel": goes_on
        and await run_in_threadpool(rights.job, viewed.ref, DagAccessEntity.TASK_INSTANCE, edit=True),
        "service": await _service_state(rights, viewed, answer),
    }


@router.get("/metrics")
async def metrics(viewed: ReadableJob, rights: RightsDep) -> Response:
    """The curves of the job's metrics."""
    return await _document(viewed, rights, "metrics", lambda client: client.metrics(viewed.job_id), {"curves": []})


@router.get("/usage")
async def usage(viewed: ReadableJob, rights: RightsDep) -> Response:
    """The resources that the job uses."""
    default: dict[str, Any] = {"requested": None, "allocated": None, "samples": []}
    return await _document(viewed, rights, "usage", lambda client: client.usage(viewed.job_id), default)


@router.get("/environment")
async def environment(viewed: ReadableJob, rights: RightsDep) -> Response:
    """The Python and the packages that the job ran with."""
    default: dict[str, Any] = {"python": "", "packages": []}
    return await _document(viewed, rights, "environment", lambda client: client.environment(viewed.job_id), default)


@router.get("/model")
async def model(viewed: ReadableJob, rights: RightsDep) -> Response:
    """What the job hands on: its model."""
    if not viewed.service:
        return _reply(b'{"model":null}', True, _NOT_ASKED)
    answer = await gateway.get().ask(
        viewed.service, "model", viewed.job_id, _as_json(lambda client: client.model(viewed.job_id))
    )
    supported = answer.value is not None or await _supports_extensions(viewed.service, viewed.job_id)
    document = b'{"model":' + (answer.value or b"null") + b"}"
    return _reply(document, supported, await _service_state(rights, viewed, answer))


@router.get("/log")
async def log(viewed: ReadableLog, rights: RightsDep, after: int = Query(0, ge=0), tail: str = "") -> dict[str, Any]:
    """The lines of the job's log after those that the page has."""
    if not viewed.service:
        return {**_NO_LINES, "service": _NOT_ASKED}
    lines = tails.get().get(viewed.service, viewed.job_id)
    answer = await gateway.get().ask(
        viewed.service, "log", viewed.job_id, lambda client: lines.read_on(client, viewed.job_id)
    )
    reset = bool(lines.id and (tail or after) and tail != lines.id)
    return {
        **lines.reply(0 if reset else after),
        "ended": lines.ended or lines.unknown,
        "tail": lines.id or tail,
        "reset": reset,
        "service": await _service_state(rights, viewed, answer),
    }


@router.post("/cancel")
async def cancel(
    request: Request, viewed: EditableJob, rights: RightsDep, x_requested_by: str = Header("")
) -> dict[str, Any]:
    """Cancel the job, if the task has not gone on with another one."""
    # Another site's page can make a browser send a form here, but not a custom header.
    if x_requested_by != "training":
        raise HTTPException(400, "The header X-Requested-By must be training.")
    # The task may have gone on with another job than the one that the user saw.
    if (expected := optional(request.query_params, "expected")) and expected != viewed.job_id:
        raise HTTPException(409, f"The job of this task is no longer {expected}.")
    if not viewed.service:
        raise HTTPException(409, viewed.training.why_no_job if viewed.training else "There is no job.")

    async def cancel_and_find(client: TrainingClient) -> JobStatus | None:
        await client.cancel(viewed.job_id)
        return await client.find(viewed.job_id)

    services = gateway.get()
    answer = await services.ask(viewed.service, "cancel", viewed.job_id, cancel_and_find)
    services.forget(viewed.service, viewed.job_id)
    if not answer.reachable:
        visible = await visible_to(rights, viewed.service, answer)
        raise HTTPException(502, f"The job could not be canceled: {visible.message}")
    if not answer.value:
        raise HTTPException(404, f"The training service does not know the job {viewed.job_id}.")
    return {"job": show_status(answer.value)}


def _latest(viewed: ViewedJob, answer: Answer[JobStatus | None] | None) -> JobStatus | None:
    """The last known status of the job; None if there is no job."""
    if answer and answer.value:
        return answer.value
    training = viewed.training
    if not training or not viewed.job_id:
        return None
    if answer and _is_unknown(answer) and not (training.status and training.status.state.ended):
        return JobStatus(job_id=viewed.job_id, name=training.name, state=JobState.UNKNOWN, message=_LOST)
    return training.status or JobStatus(job_id=viewed.job_id, name=training.name, state=JobState.UNKNOWN)


def _is_unknown(answer: Answer[JobStatus | None]) -> bool:
    """Whether the service answers and does not know the job."""
    return answer.reachable and answer.value is None


async def _status(service: ServiceRef, job_id: str) -> Answer[JobStatus | None]:
    return await gateway.get().ask(service, STATUS, job_id, lambda client: client.find(job_id))


async def _service_state(rights: Rights, viewed: ViewedJob, answer: Answer[Any] | None) -> dict[str, Any]:
    if not viewed.service or not answer:
        return _NOT_ASKED
    return (await visible_to(rights, viewed.service, answer)).to_dict()


async def _supports_extensions(service: ServiceRef, job_id: str) -> bool:
    metrics = await gateway.get().ask(service, "metrics", job_id, _as_json(lambda client: client.metrics(job_id)))
    return metrics.value is not None or not metrics.reachable or _is_unknown(await _status(service, job_id))


async def _document(
    viewed: ViewedJob,
    rights: Rights,
    name: str,
    question: Callable[[TrainingClient], Awaitable[BaseModel | None]],
    default: dict[str, Any],
) -> Response:
    empty = json.dumps(default).encode()
    if not viewed.service:
        return _reply(empty, True, _NOT_ASKED)
    answer = await gateway.get().ask(viewed.service, name, viewed.job_id, _as_json(question))
    supported = (
        answer.value is not None or not answer.reachable or _is_unknown(await _status(viewed.service, viewed.job_id))
    )
    return _reply(answer.value or empty, supported, await _service_state(rights, viewed, answer))


def _as_json(
    question: Callable[[TrainingClient], Awaitable[BaseModel | None]],
) -> Callable[[TrainingClient], Awaitable[bytes | None]]:
    """A question whose answer is serialized once, for all tabs."""

    async def ask(client: TrainingClient) -> bytes | None:
        found = await question(client)
        return found.model_dump_json().encode() if found else None

    return ask


def _reply(document: bytes, supported: bool, service: dict[str, Any]) -> Response:
    """A JSON object, extended by the state of the service."""
    more = json.dumps({"supported": supported, "service": service}).encode()
    return Response(document[:-1] + b"," + more[1:], media_type="application/json")
