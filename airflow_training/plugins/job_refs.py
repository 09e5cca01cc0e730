"""How a page names a job: by the task whose job it is, or by a connection and the job's id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from starlette.datastructures import QueryParams

from airflow_training.api.naming import job_id
from airflow_training.plugins.texts import sendable

# Airflow's own limit for each of its ids.
_LONGEST = 250
# What the UI of Airflow leaves in an address where the task is not mapped.
_NOT_MAPPED = frozenset({"", "{MAP_INDEX}"})
# An id becomes a part of a path of the job API.
_JOB_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
# Each job of a task has another id; a task has had fewer.
_GENERATIONS = 1000


class InvalidRef(ValueError):
    """A reference that names nothing; says why in a sentence."""


@dataclass(frozen=True)
class TaskRef:
    """A task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def to_dict(self) -> dict[str, Any]:
        """The reference as JSON can hold it."""
        return asdict(self)

    def owns(self, job: str) -> bool:
        """Whether a job is one of this task's.

        Who may write an XCom could name another's there. The ids of jobs are derived from their tasks.
        """
        return job in self.job_ids()

    def job_ids(self, generations: int = _GENERATIONS) -> Iterator[str]:
        """The ids that the first jobs of this task have, had it so many; no more than a task has ever had."""
        for generation in range(1, min(generations, _GENERATIONS) + 1):
            yield job_id(self.dag_id, self.run_id, self.task_id, self.map_index, generation)


@dataclass(frozen=True)
class JobRef:
    """A job of the service that a connection leads to."""

    conn_id: str
    job_id: str


def read_ref(params: QueryParams) -> TaskRef | JobRef:
    """Read a reference out of the parameters of a request; raises InvalidRef.

    >>> read_ref(QueryParams("dag_id=nightly&run_id=first&task_id=train"))
    TaskRef(dag_id='nightly', run_id='first', task_id='train', map_index=-1)
    """
    given = {name for name in params if name in ("dag_id", "run_id", "task_id", "map_index", "conn_id", "job_id")}
    if given & {"conn_id", "job_id"}:
        if given != {"conn_id", "job_id"}:
            raise InvalidRef("Name either dag_id, run_id, task_id and map_index, or conn_id and job_id.")
        job = text(params, "job_id")
        if not _JOB_ID.fullmatch(job):
            raise InvalidRef("job_id is not the id of a job.")
        return JobRef(text(params, "conn_id"), job)
    return TaskRef(text(params, "dag_id"), text(params, "run_id"), text(params, "task_id"), _map_index(params))


def task_ref(given: Any) -> TaskRef:
    """Read a reference to a task instance out of JSON; raises InvalidRef."""
    if not isinstance(given, dict) or not set(given) <= {"dag_id", "run_id", "task_id", "map_index"}:
        raise InvalidRef("ti must be an object with dag_id, run_id, task_id and map_index.")
    if not all(isinstance(value, (str, int)) for value in given.values()):
        raise InvalidRef("ti must hold texts, and map_index a number.")
    ref = read_ref(QueryParams([(name, str(value)) for name, value in given.items()]))
    if not isinstance(ref, TaskRef):
        raise InvalidRef("ti must name a task instance.")
    return ref


def text(params: QueryParams, name: str) -> str:
    """Read a parameter that must be there, once; raises InvalidRef."""
    found = optional(params, name)
    if not found:
        raise InvalidRef(f"{name} is missing.")
    return found


def optional(params: QueryParams, name: str) -> str:
    """Read a parameter that may be there, once; raises InvalidRef."""
    # Of two, one part of a program may take the first and another one the last.
    values = params.getlist(name)
    if len(values) > 1:
        raise InvalidRef(f"{name} is given {len(values)} times.")
    if values and (len(values[0]) > _LONGEST or "\0" in values[0] or values[0] != sendable(values[0])):
        raise InvalidRef(f"{name} cannot be that.")
    return values[0] if values else ""


def _map_index(params: QueryParams) -> int:
    given = optional(params, "map_index")
    if given in _NOT_MAPPED or given == "-1":
        return -1
    if not re.fullmatch(r"[0-9]{1,9}", given):
        raise InvalidRef("map_index must be a whole number from -1 on.")
    return int(given)
