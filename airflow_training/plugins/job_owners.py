"""Whose the jobs are: the tasks that have claimed them, which decides who may see them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from threading import Lock
from typing import Any
from uuid import UUID

from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from cachetools import TTLCache
from sqlalchemy import String, cast, func, or_, select
from sqlalchemy.orm import Session

from airflow_training.operators.claim import STATE_KEY
from airflow_training.plugins.job_refs import TaskRef
from airflow_training.xcom_keys import JOB_ID_KEY

# Each tab asks some times in a moment, and no index of Airflow's database serves the question.
_FRESH = 2.0
_owners: TTLCache[str, TaskRef | None] = TTLCache(20_000, _FRESH)
_lock = Lock()


def owner_of(job_id: str) -> TaskRef | None:
    """The task that a job is of; None where none has claimed it."""
    return owners_of([job_id]).get(job_id)


def owners_of(job_ids: Collection[str]) -> dict[str, TaskRef]:
    """The tasks that jobs are of."""
    spelt = {job_id: own for job_id in job_ids if (own := _as_of_a_task(job_id))}
    with _lock:
        known = {own: _owners[own] for own in spelt.values() if own in _owners}
        if unknown := set(spelt.values()) - set(known):
            known |= dict.fromkeys(unknown) | _claimed(unknown)
            _owners.update(known)
    return {job_id: owner for job_id, own in spelt.items() if (owner := known[own])}


def _as_of_a_task(job_id: str) -> str:
    """The id as tasks spell it, since a service may take others for the same; empty where no task has such an id."""
    with suppress(ValueError):
        uuid = UUID(job_id)
        return str(uuid) if uuid.version == 5 else ""
    return ""


def _claimed(job_ids: set[str]) -> dict[str, TaskRef]:
    with create_session(scoped=False) as session:
        return dict(_by_xcoms(job_ids, session)) | dict(_by_claims(job_ids, session))


def _by_claims(job_ids: set[str], session: Session) -> Iterator[tuple[str, TaskRef]]:
    """By the claims: written before the job is submitted, they outlive tries, and each tells of those before it."""
    table = TaskStateStoreModel
    # As Airflow writes them. Every one that does not look like the first job of a task is read.
    beginnings = [json.dumps({"job_id": job_id})[:-1] for job_id in job_ids]
    of_these = func.substr(table.value, 1, len(beginnings[0])).in_(beginnings)
    of_some = table.value.not_like('{"job_id": "%", "generation": 1, %')
    columns: tuple[Any, ...] = (table.value, table.dag_id, table.run_id, table.task_id, table.map_index)
    for text, *task in session.execute(select(*columns).where(table.key == STATE_KEY, or_(of_these, of_some))):
        ref = TaskRef(*task)
        yield from ((job_id, ref) for job_id in ref.job_ids(_generation(text)) if job_id in job_ids)


def _generation(text: str) -> int:
    """How many jobs a task has had; 0 where somebody wrote something else there, or it is kept elsewhere."""
    with suppress(ValueError, RecursionError):
        claim: Any = json.loads(text)
        if isinstance(claim, dict) and isinstance(generation := claim.get("generation"), int):
            return generation
    return 0


def _by_xcoms(job_ids: set[str], session: Session) -> Iterator[tuple[str, TaskRef]]:
    """By the XComs: Airflow may be told to remove the states of tasks after a while, or at their success."""
    columns = (XComModel.value, XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    # Each database compares the texts of JSON, but not each of them JSON.
    texts = [f'"{job_id}"' for job_id in job_ids]
    told = select(*columns).where(XComModel.key == JOB_ID_KEY, cast(XComModel.value, String(100)).in_(texts))
    for job_id, *task in session.execute(told):
        ref = TaskRef(*task)
        if ref.owns(str(job_id)):
            yield str(job_id), ref
