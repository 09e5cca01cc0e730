"""The owner of a job, by claims and XComs: it decides who may see the job."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.xcom import XComModel
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airflow_training.api.naming import job_id
from airflow_training.operators.claim import STATE_KEY, Claim
from airflow_training.plugins import job_owners
from airflow_training.plugins.job_refs import TaskRef
from airflow_training.xcom_keys import JOB_ID_KEY
from tests.patience import PATIENCE

TASK = TaskRef("nightly", "manual__1", "train", 2)


def job(job_number: int, task: TaskRef = TASK) -> str:
    return job_id(task.dag_id, task.run_id, task.task_id, task.map_index, job_number)


def claim(job_number: int, task: TaskRef = TASK) -> dict[str, Any]:
    return asdict(Claim(job(job_number, task), job_number, 0, "census", "training_default", None, "1h"))


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

    def statements(self, action: Callable[[], object]) -> list[str]:
        """The statements that an action executes."""
        executed: list[str] = []

        def listener(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            executed.append(statement)

        engine = self._session.get_bind()
        event.listen(engine, "before_cursor_execute", listener)
        action()
        event.remove(engine, "before_cursor_execute", listener)
        return executed


def forget() -> None:
    job_owners._owners.clear()
    job_owners._unowned.clear()


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Airflow's database, with the tables that are queried."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    # Importing the model defines the table that theirs refer to.
    assert DagRun.__tablename__ == "dag_run"
    for model in (TaskStateStoreModel, XComModel):
        model.__table__.create(engine)

    @contextmanager
    def create_session(**_: object) -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    monkeypatch.setattr(job_owners, "create_session", create_session)
    forget()
    with Session(engine) as session:
        yield Database(session)
    forget()
    engine.dispose()


def test_a_task_owns_its_job_from_the_claim_on(database: Database) -> None:
    database.write(claim(1))

    assert job_owners.owner_of(job(1)) == TASK
    assert job_owners.owner_of(job(2)) is None


def test_a_task_owns_the_jobs_of_its_earlier_tries(database: Database) -> None:
    database.write(claim(3))

    assert job_owners.owners_of([job(1), job(2), job(3), job(4)]) == dict.fromkeys([job(1), job(2), job(3)], TASK)


def test_each_of_many_jobs_has_its_own_owner(database: Database) -> None:
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
    ["text", None, [], {}, {"job_number": "2"}, {"job_number": -1}, {"job_number": 10**12}, {"job_number": 1e9}],
)
def test_a_forged_claim_or_xcom_owns_no_job(database: Database, state: Any) -> None:
    theirs = TaskRef("theirs", "manual__1", "train")
    database.write({**claim(1, theirs), **state} if isinstance(state, dict) else state)
    database.push(job(1, theirs), TaskRef("mine", "manual__2", "train"))

    assert job_owners.owner_of(job(1, theirs)) is None
    database.write(claim(1, theirs), theirs)
    forget()
    assert job_owners.owner_of(job(1, theirs)) == theirs


def test_a_state_of_another_name_claims_nothing(database: Database) -> None:
    database.write(claim(1), key="training_jobs")

    assert job_owners.owner_of(job(1)) is None


def test_many_tabs_query_the_database_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.write(claim(1))
    asked = [job(1), job(2)]
    job_owners.owners_of(asked)

    monkeypatch.setattr(job_owners, "create_session", None)
    assert job_owners.owners_of(asked) == {job(1): TASK}


def test_claims_are_read_page_by_page_until_all_owners_are_known(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_owners, "_PAGE", 3)
    tasks = [TaskRef("nightly", f"manual__{number}", "train") for number in range(10)]
    for task in tasks:
        database.write(claim(2, task), task)
        database.write("unrelated", task, key="of_another_operator")
    oldest, newest = job(1, tasks[0]), job(1, tasks[-1])

    assert job_owners.owners_of([newest, oldest]) == {newest: tasks[-1], oldest: tasks[0]}
    forget()
    executed = database.statements(lambda: job_owners.owner_of(newest))
    assert len(executed) == 3, "XComs, the bounds of a page, and its claims"


def test_a_slow_query_delays_no_question_whose_answer_is_known(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write(claim(1))
    assert job_owners.owner_of(job(1)) == TASK
    queries: list[set[str]] = []
    begun, go_on = Event(), Event()

    def query(job_ids: set[str]) -> dict[str, TaskRef]:
        queries.append(job_ids)
        begun.set()
        go_on.wait(PATIENCE)
        return {}

    monkeypatch.setattr(job_owners, "_query", query)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(job_owners.owner_of, job(2))
        assert begun.wait(PATIENCE)
        second = threads.submit(job_owners.owner_of, job(2))
        assert job_owners.owner_of(job(1)) == TASK
        go_on.set()
        assert first.result(PATIENCE) is second.result(PATIENCE) is None
    assert queries == [{job(2)}], "of a job that is being looked up already, the result is awaited"


def test_a_query_that_failed_is_repeated(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.write(claim(1))
    with monkeypatch.context() as failing:
        failing.setattr(job_owners, "create_session", None)
        with pytest.raises(TypeError):
            job_owners.owner_of(job(1))

    assert job_owners.owner_of(job(1)) == TASK
