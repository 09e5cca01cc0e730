"""Whose a job is, by what the tasks have written: it decides who may see the job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.xcom import XComModel
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airflow_training.api.naming import job_id
from airflow_training.operators.claim import STATE_KEY, Claim
from airflow_training.plugins import job_owners
from airflow_training.plugins.job_refs import TaskRef
from airflow_training.xcom_keys import JOB_ID_KEY

TASK = TaskRef("nightly", "manual__1", "train", 2)


def job(generation: int, task: TaskRef = TASK) -> str:
    return job_id(task.dag_id, task.run_id, task.task_id, task.map_index, generation)


def claim(generation: int, task: TaskRef = TASK) -> dict[str, Any]:
    return Claim(job(generation, task), generation, 0, "census", "training_default", None, "1h").to_dict()


class Database:
    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, state: Any, task: TaskRef = TASK, key: str = STATE_KEY) -> None:
        """Write a state as Airflow's metastore does."""
        self._session.add(
            TaskStateStoreModel(dag_run_id=hash(task) % 2**31, key=key, value=json.dumps(state), **task.to_dict())
        )
        self._session.commit()

    def push(self, value: Any, task: TaskRef = TASK) -> None:
        """Push an XCom."""
        self._session.add(XComModel(dag_run_id=hash(task) % 2**31, key=JOB_ID_KEY, value=value, **task.to_dict()))
        self._session.commit()


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Airflow's, with the tables that are asked."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    # What they refer to is only named.
    assert DagRun.__tablename__ == "dag_run"
    for model in (TaskStateStoreModel, XComModel):
        model.__table__.create(engine)

    @contextmanager
    def create_session(**_: object) -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    monkeypatch.setattr(job_owners, "create_session", create_session)
    job_owners._owners.clear()
    with Session(engine) as session:
        yield Database(session)
    job_owners._owners.clear()
    engine.dispose()


def test_a_job_is_its_tasks_from_the_claim_on(database: Database) -> None:
    database.write(claim(1))

    assert job_owners.owner_of(job(1)) == TASK
    assert job_owners.owner_of(job(2)) is None


def test_a_job_of_a_former_try_stays_its_tasks(database: Database) -> None:
    database.write(claim(3))

    assert job_owners.owners_of([job(1), job(2), job(3), job(4)]) == dict.fromkeys([job(1), job(2), job(3)], TASK)


def test_each_of_many_jobs_is_its_own_tasks(database: Database) -> None:
    tasks = [TaskRef("nightly", f"manual__{number}", "train") for number in range(20)]
    for number, task in enumerate(tasks):
        database.write(claim(1 + number % 3, task), task)
    jobs = {job(1, task): task for task in tasks}

    assert job_owners.owners_of([*jobs, str(uuid4()), "of-another-kind"]) == jobs


def test_another_spelling_of_the_id_is_the_same_job(database: Database) -> None:
    database.write(claim(1))

    for spelling in (job(1).upper(), job(1).replace("-", "")):
        assert job_owners.owner_of(spelling) == TASK


def test_a_claim_that_airflow_has_removed_leaves_the_xcom(database: Database) -> None:
    database.push(job(1))

    assert job_owners.owner_of(job(1)) == TASK


@pytest.mark.parametrize(
    "state",
    ["text", None, [], {}, {"generation": "2"}, {"generation": -1}, {"generation": 10**12}, {"generation": 1e9}],
)
def test_who_writes_anything_there_gets_nobody_elses_job(database: Database, state: Any) -> None:
    theirs = TaskRef("theirs", "manual__1", "train")
    database.write({**claim(1, theirs), **state} if isinstance(state, dict) else state)
    database.push(job(1, theirs), TaskRef("mine", "manual__2", "train"))

    assert job_owners.owner_of(job(1, theirs)) is None
    database.write(claim(1, theirs), theirs)
    job_owners._owners.clear()
    assert job_owners.owner_of(job(1, theirs)) == theirs


def test_a_state_of_another_name_claims_nothing(database: Database) -> None:
    database.write(claim(1), key="training_jobs")

    assert job_owners.owner_of(job(1)) is None


def test_many_tabs_ask_the_database_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.write(claim(1))
    asked = [job(1), job(2)]
    job_owners.owners_of(asked)

    monkeypatch.setattr(job_owners, "create_session", None)
    assert job_owners.owners_of(asked) == {job(1): TASK}
