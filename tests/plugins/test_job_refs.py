"""References to jobs, valid and invalid."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from airflow_training.api.naming import job_id
from airflow_training.plugins.job_refs import InvalidRef, JobRef, TaskRef, read_ref, read_task_ref

TASK: dict[str, Any] = {"dag_id": "nightly", "run_id": "manual__1", "task_id": "train"}
IDS = st.text(min_size=1, max_size=250).filter(lambda text: "\0" not in text and text.isprintable())


@pytest.mark.parametrize("index", ["", "-1", "{MAP_INDEX}", None])
def test_a_task_that_is_not_mapped_is_named_as_airflows_ui_names_it(index: str | None) -> None:
    params = TASK | ({} if index is None else {"map_index": index})

    assert read_ref(QueryParams(params)) == TaskRef(**TASK)


@given(dag_id=IDS, run_id=IDS, task_id=IDS, map_index=st.integers(-1, 10**9 - 1))
def test_every_id_arrives_as_it_was_sent(dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
    ref = TaskRef(dag_id, run_id, task_id, map_index)

    assert read_ref(QueryParams(urlencode(ref.to_dict()))) == ref
    assert read_task_ref(json.loads(json.dumps(ref.to_dict()))) == ref


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "dag_id is missing"),
        ("dag_id=&run_id=r&task_id=t", "dag_id is missing"),
        ("dag_id=a&dag_id=b&run_id=r&task_id=t", "dag_id is given 2 times"),
        ("dag_id=a&run_id=r&task_id=t&task_id=t", "task_id is given 2 times"),
        ("dag_id=a%00b&run_id=r&task_id=t", "dag_id is invalid"),
        (f"dag_id={'a' * 251}&run_id=r&task_id=t", "dag_id is invalid"),
        ("dag_id=a&run_id=r&task_id=t&map_index=-2", "map_index must be"),
        ("dag_id=a&run_id=r&task_id=t&map_index=1.0", "map_index must be"),
        ("dag_id=a&run_id=r&task_id=t&map_index=%D9%A1", "map_index must be"),
        ("dag_id=a&run_id=r&task_id=t&job_id=j", "Pass either"),
        ("conn_id=c", "Pass either"),
        ("conn_id=c&job_id=../storage", "job_id is not"),
        ("conn_id=c&job_id=a%2Fb", "job_id is not"),
        ("conn_id=c&job_id=a%3Fb", "job_id is not"),
        ("conn_id=c&job_id=..", "job_id is not"),
        ("conn_id=&job_id=a", "conn_id is missing"),
    ],
)
def test_an_invalid_reference_is_rejected_with_a_message(query: str, message: str) -> None:
    with pytest.raises(InvalidRef, match=message):
        read_ref(QueryParams(query))


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        "a",
        {},
        {**TASK, "job_id": "a"},
        {**TASK, "dag_id": ["a"]},
        {**TASK, "run_id": "\ud83d"},
        {**TASK, "map_index": None},
    ],
)
def test_json_without_a_valid_task_is_rejected(given: object) -> None:
    with pytest.raises(InvalidRef):
        read_task_ref(given)


def test_a_job_is_named_by_its_connection() -> None:
    job = job_id("d", "r", "t", -1, 1)

    assert read_ref(QueryParams({"conn_id": "c", "job_id": job})) == JobRef("c", job)


def test_a_task_owns_its_own_jobs_only() -> None:
    ref = TaskRef("d", "r", "t", 3)

    assert ref.owns(job_id("d", "r", "t", 3, 1))
    assert ref.owns(job_id("d", "r", "t", 3, 20))
    assert not ref.owns(job_id("d", "r", "t", 4, 1))
    assert not ref.owns(job_id("other", "r", "t", 3, 1))
    assert not ref.owns("")
