"""What the page of a job asks for."""

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
from airflow_training.plugins.access import Rights, RightsDep
from airflow_training.plugins.clients import Service
from airflow_training.plugins.display import told_to
from airflow_training.plugins.gateway import STATUS, Answer, asking
from airflow_training.plugins.job_refs import JobRef, optional
from airflow_training.plugins.log_tails import tails
from airflow_training.plugins.viewed_job import (
    EditableJobDep,
    KnownJob,
    KnownJobDep,
    KnownLogDep,
    show_status,
    show_task,
)

router = APIRouter()

_LOST = "The training service does not know the job any more."
_NOBODY_ASKED = {"reachable": True, "message": "", "since": None}


@router.get("/job")
async def job(known: KnownJobDep, rights: RightsDep) -> dict[str, Any]:
    """The job: its status and what is known of its task."""
    answer = await _status(known.service, known.job_id) if known.service else None
    if isinstance(known.ref, JobRef) and answer and _is_unknown(answer):
        raise HTTPException(404, f"The training service does not know the job {known.job_id}.")
    training = known.training
    status = _latest(known, answer)
    goes_on = bool(status and not status.state.ended and not (answer and _is_unknown(answer)))
    return {
        "task": show_task(training) if training else None,
        "connection": known.service.conn_id if known.service else None,
        "job": show_status(status) if status else None,
        "why_no_job": training.why_no_job if training else "",
        "location": training.location if training else None,
        "metrics": dict(training.metrics) if training else {},
        "parameters": list(training.parameters) if training else [],
        "inputs": list(training.inputs) if training else [],
        "may_cancel": goes_on
        and await run_in_threadpool(rights.job, known.ref, DagAccessEntity.TASK_INSTANCE, edit=True),
        "service": await _told(rights, known, answer),
    }


@router.get("/metrics")
async def metrics(known: KnownJobDep, rights: RightsDep) -> Response:
    """The curves of its metrics."""
    return await _document(known, rights, "metrics", lambda client: client.metrics(known.job_id), {"curves": []})


@router.get("/usage")
async def usage(known: KnownJobDep, rights: RightsDep) -> Response:
    """What it used of its machine."""
    nothing: dict[str, Any] = {"asked": None, "granted": None, "samples": []}
    return await _document(known, rights, "usage", lambda client: client.usage(known.job_id), nothing)


@router.get("/model")
async def model(known: KnownJobDep, rights: RightsDep) -> Response:
    """The SavedModel that it left."""
    if not known.service:
        return _reply(b'{"model":null}', True, _NOBODY_ASKED)
    answer = await asking.get().ask(
        known.service, "model", known.job_id, _as_json(lambda client: client.model(known.job_id))
    )
    supported = answer.value is not None or await _supports_extensions(known.service, known.job_id)
    return _reply(b'{"model":' + (answer.value or b"null") + b"}", supported, await _told(rights, known, answer))


@router.get("/log")
async def log(known: KnownLogDep, rights: RightsDep, after: int = Query(0, ge=0), tail: str = "") -> dict[str, Any]:
    """The lines of its log after those that the page has."""
    if not known.service:
        return {
            "records": [], "next": 1, "skipped": False, "ended": False, "tail": "", "reset": False,
            "service": _NOBODY_ASKED,
        }  # fmt: skip
    lines = tails.get().get(known.service, known.job_id)
    answer = await asking.get().ask(
        known.service, "log", known.job_id, lambda client: lines.read_on(client, known.job_id)
    )
    reset = bool(lines.id and (tail or after) and tail != lines.id)
    return {
        **lines.reply(0 if reset else after),
        "ended": lines.ended or lines.unknown,
        "tail": lines.id or tail,
        "reset": reset,
        "service": await _told(rights, known, answer),
    }


@router.post("/cancel")
async def cancel(
    request: Request, known: EditableJobDep, rights: RightsDep, x_requested_by: str = Header("")
) -> dict[str, Any]:
    """Cancel it, where it still is the job that is expected."""
    # Another site's page can have a browser send a form here, but not a header of its own.
    if x_requested_by != "training":
        raise HTTPException(400, "The header X-Requested-By must be training.")
    # Whoever asks has seen a job; the task may have gone on with another one since.
    if (expected := optional(request.query_params, "expected")) and expected != known.job_id:
        raise HTTPException(409, f"The job of this task is not {expected} any more.")
    if not known.service:
        raise HTTPException(409, known.training.why_no_job if known.training else "There is no job.")

    async def end(client: TrainingClient) -> JobStatus | None:
        await client.cancel(known.job_id)
        return await client.find(known.job_id)

    ask = asking.get()
    answer = await ask.ask(known.service, "cancel", known.job_id, end)
    ask.forget(known.service, known.job_id)
    if not answer.reachable:
        told = await told_to(rights, known.service, answer)
        raise HTTPException(502, f"The job could not be cancelled: {told.message}")
    if not answer.value:
        raise HTTPException(404, f"The training service does not know the job {known.job_id}.")
    return {"job": show_status(answer.value)}


def _latest(known: KnownJob, answer: Answer[JobStatus | None] | None) -> JobStatus | None:
    """The status that is known last, of a job that the task at least has submitted."""
    if answer and answer.value:
        return answer.value
    training = known.training
    if not training or not known.job_id:
        return None
    if answer and _is_unknown(answer) and not (training.status and training.status.state.ended):
        return JobStatus(job_id=known.job_id, name=training.name, state=JobState.UNKNOWN, message=_LOST)
    return training.status or JobStatus(job_id=known.job_id, name=training.name, state=JobState.UNKNOWN)


def _is_unknown(answer: Answer[JobStatus | None]) -> bool:
    """Whether the service can be asked and does not know the job."""
    return answer.reachable and answer.value is None


async def _status(service: Service, job_id: str) -> Answer[JobStatus | None]:
    return await asking.get().ask(service, STATUS, job_id, lambda client: client.find(job_id))


async def _told(rights: Rights, known: KnownJob, answer: Answer[Any] | None) -> dict[str, Any]:
    if not known.service or not answer:
        return _NOBODY_ASKED
    return (await told_to(rights, known.service, answer)).to_dict()


async def _supports_extensions(service: Service, job_id: str) -> bool:
    metrics = await asking.get().ask(service, "metrics", job_id, _as_json(lambda client: client.metrics(job_id)))
    return metrics.value is not None or not metrics.reachable or _is_unknown(await _status(service, job_id))


async def _document(
    known: KnownJob,
    rights: Rights,
    what: str,
    question: Callable[[TrainingClient], Awaitable[BaseModel | None]],
    nothing: dict[str, Any],
) -> Response:
    empty = json.dumps(nothing).encode()
    if not known.service:
        return _reply(empty, True, _NOBODY_ASKED)
    answer = await asking.get().ask(known.service, what, known.job_id, _as_json(question))
    supported = (
        answer.value is not None or not answer.reachable or _is_unknown(await _status(known.service, known.job_id))
    )
    return _reply(answer.value or empty, supported, await _told(rights, known, answer))


def _as_json(
    question: Callable[[TrainingClient], Awaitable[BaseModel | None]],
) -> Callable[[TrainingClient], Awaitable[bytes | None]]:
    """A question whose answer is written once, for all who want to know."""

    async def ask(client: TrainingClient) -> bytes | None:
        found = await question(client)
        return found.model_dump_json().encode() if found else None

    return ask


def _reply(document: bytes, supported: bool, service: dict[str, Any]) -> Response:
    """A document of JSON, and beside what is in it what the page has to know of the service."""
    more = json.dumps({"supported": supported, "service": service}).encode()
    return Response(document[:-1] + b"," + more[1:], media_type="application/json")
