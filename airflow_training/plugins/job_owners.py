"""Which task owns a job, that is, has claimed it: this decides who may see the job."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import suppress
from itertools import chain
from threading import Lock
from typing import Any
from uuid import UUID

from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from cachetools import TTLCache
from sqlalchemy import String, cast, func, or_, select, true
from sqlalchemy.orm import Session

from airflow_training.operators.claim import STATE_KEY
from airflow_training.plugins.job_refs import TaskRef
from airflow_training.xcom_keys import JOB_ID_KEY

# The owner of a job never changes, since the job's id is derived from its task; a job without an owner may yet be
# claimed. Each tab asks several times within a moment.
_owners: TTLCache[str, TaskRef] = TTLCache(20_000, 600.0)
_unowned: TTLCache[str, None] = TTLCache(20_000, 2.0)
_lookups: dict[str, Future[dict[str, TaskRef]]] = {}
# Of the three above; never held during a query.
_lock = Lock()

# Rows of the task state store that one statement reads.
_PAGE = 5000


def owner_of(job_id: str) -> TaskRef | None:
    """The task that owns a job; None if no task has claimed it."""
    return owners_of([job_id]).get(job_id)


def owners_of(job_ids: Collection[str]) -> dict[str, TaskRef]:
    """The tasks that own jobs, by job id; jobs without an owner are left out."""
    claimable = {job_id: uuid for job_id in job_ids if (uuid := _as_claimed(job_id))}
    with _lock:
        owners = {uuid: owner for uuid in set(claimable.values()) if (owner := _owners.get(uuid))}
        unknown = {uuid for uuid in claimable.values() if uuid not in owners and uuid not in _unowned}
        running = {_lookups[uuid] for uuid in unknown if uuid in _lookups}
        missing = unknown - _lookups.keys()
        lookup: Future[dict[str, TaskRef]] = Future()
        _lookups.update(dict.fromkeys(missing, lookup))
    if missing:
        owners |= _look_up(missing, lookup)
    for other in running:
        owners |= other.result()
    return {job_id: owners[uuid] for job_id, uuid in claimable.items() if uuid in owners}


def _as_claimed(job_id: str) -> str:
    """The id in the spelling of a claim, since a service may accept others; empty if no task derives such an id."""
    with suppress(ValueError):
        uuid = UUID(job_id)
        return str(uuid) if uuid.version == 5 else ""
    return ""


def _look_up(job_ids: set[str], lookup: Future[dict[str, TaskRef]]) -> dict[str, TaskRef]:
    """Query Airflow's database, and publish the result to the threads that wait for it."""
    try:
        owners = _query(job_ids)
        with _lock:
            _owners.update(owners)
            _unowned.update(dict.fromkeys(job_ids - owners.keys()))
        lookup.set_result(owners)
    except BaseException as error:
        lookup.set_exception(error)
        raise
    finally:
        with _lock:
            for job_id in job_ids:
                del _lookups[job_id]
    return owners


def _query(job_ids: set[str]) -> dict[str, TaskRef]:
    owners: dict[str, TaskRef] = {}
    with create_session(scoped=False) as session:
        for job_id, owner in chain(_by_xcoms(job_ids, session), _by_claims(job_ids, session)):
            owners[job_id] = owner
            if len(owners) == len(job_ids):
                break
    return owners


def _by_xcoms(job_ids: set[str], session: Session) -> Iterator[tuple[str, TaskRef]]:
    """Owners by XCom, which an index on the key finds: the current jobs of tasks, even if their states were removed."""
    columns = (XComModel.value, XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    # Every database compares JSON cast to text, but not every one compares JSON.
    texts = [f'"{job_id}"' for job_id in job_ids]
    matching = select(*columns).where(XComModel.key == JOB_ID_KEY, cast(XComModel.value, String(100)).in_(texts))
    for job_id, *task in session.execute(matching):
        ref = TaskRef(*task)
        if ref.owns(str(job_id)):
            yield str(job_id), ref


def _by_claims(job_ids: set[str], session: Session) -> Iterator[tuple[str, TaskRef]]:
    """Owners by claim, for the jobs of earlier tries: a claim precedes its job, outlives tries, and counts the jobs.

    No index serves this question. It reads pages of the primary key, the newest first, and a caller stops early.
    """
    table = TaskStateStoreModel
    # As Airflow serializes claims. A task with several jobs has the id of the last one in its claim: each such is read.
    beginnings = [json.dumps({"job_id": job_id})[:-1] for job_id in job_ids]
    of_these = func.substr(table.value, 1, len(beginnings[0])).in_(beginnings)
    of_several = table.value.not_like('{"job_id": "%", "job_number": 1, %')
    columns: tuple[Any, ...] = (table.value, table.dag_id, table.run_id, table.task_id, table.map_index)
    older: Any = true()
    while True:
        page = select(table.id).where(older).order_by(table.id.desc()).limit(_PAGE).subquery()
        first = session.scalar(select(func.min(page.c.id)))
        if first is None:
            return
        claims = select(*columns).where(table.id >= first, older, table.key == STATE_KEY, or_(of_these, of_several))
        for text, *task in session.execute(claims):
            ref = TaskRef(*task)
            yield from ((job_id, ref) for job_id in ref.job_ids(_job_count(text)) if job_id in job_ids)
        older = table.id < first


def _job_count(text: str) -> int:
    """How many jobs a task has had; 0 if the state is no claim, or is kept elsewhere."""
    with suppress(ValueError, RecursionError):
        claim: Any = json.loads(text)
        if isinstance(claim, dict) and isinstance(job_number := claim.get("job_number"), int):
            return job_number
    return 0
