"""How a page names a job: by its task, or by a connection and the job's id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from starlette.datastructures import QueryParams

from airflow_training.api.naming import job_id
from airflow_training.plugins.display import utf8_safe

# Airflow's limit for each of its ids.
_MAX_LENGTH = 250
# The placeholder that Airflow's UI leaves in a URL if the task is not mapped.
_NOT_MAPPED = frozenset({"", "{MAP_INDEX}"})
# An id becomes a part of a path of the job API.
_JOB_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
# A task has had fewer jobs.
_MAX_JOBS = 1000


class InvalidRef(ValueError):
    """An invalid reference; the message is a sentence for the user."""


@dataclass(frozen=True)
class TaskRef:
    """A task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def to_dict(self) -> dict[str, Any]:
        """The reference as a JSON object."""
        return asdict(self)

    def owns(self, job: str) -> bool:
        """Whether a job is one of this task's: its id is derived from the task.

        An XCom proves nothing, since a user who may write XComs could put any job id there.
        """
        return job in self.job_ids()

    def job_ids(self, count: int = _MAX_JOBS) -> Iterator[str]:
        """The ids of the first `count` jobs of this task."""
        for job_number in range(1, min(count, _MAX_JOBS) + 1):
            yield job_id(self.dag_id, self.run_id, self.task_id, self.map_index, job_number)


@dataclass(frozen=True)
class JobRef:
    """A job of the service behind a connection."""

    conn_id: str
    job_id: str


def read_ref(params: QueryParams) -> TaskRef | JobRef:
    """Read a reference from the query parameters of a request; raises InvalidRef.

    >>> read_ref(QueryParams("dag_id=nightly&run_id=first&task_id=train"))
    TaskRef(dag_id='nightly', run_id='first', task_id='train', map_index=-1)
    """
    given = {name for name in params if name in ("dag_id", "run_id", "task_id", "map_index", "conn_id", "job_id")}
    if given & {"conn_id", "job_id"}:
        if given != {"conn_id", "job_id"}:
            raise InvalidRef("Pass either dag_id, run_id, task_id and map_index, or conn_id and job_id.")
        job = required(params, "job_id")
        if not _JOB_ID.fullmatch(job):
            raise InvalidRef("job_id is not a valid job id.")
        return JobRef(required(params, "conn_id"), job)
    dag_id, run_id, task_id = (required(params, name) for name in ("dag_id", "run_id", "task_id"))
    return TaskRef(dag_id, run_id, task_id, _map_index(params))


def read_task_ref(given: Any) -> TaskRef:
    """Read a reference to a task instance from JSON; raises InvalidRef."""
    if not isinstance(given, dict) or not set(given) <= {"dag_id", "run_id", "task_id", "map_index"}:
        raise InvalidRef("ti must be an object with dag_id, run_id, task_id and map_index.")
    if not all(isinstance(value, (str, int)) for value in given.values()):
        raise InvalidRef("ti must contain strings and an integer map_index.")
    ref = read_ref(QueryParams([(name, str(value)) for name, value in given.items()]))
    if not isinstance(ref, TaskRef):
        raise InvalidRef("ti must name a task instance.")
    return ref


def required(params: QueryParams, name: str) -> str:
    """Read a required query parameter, given once; raises InvalidRef."""
    found = optional(params, name)
    if not found:
        raise InvalidRef(f"{name} is missing.")
    return found


def optional(params: QueryParams, name: str) -> str:
    """Read an optional query parameter, given once; empty if it is missing. Raises InvalidRef."""
    # Of two values, one part of a program may take the first and another one the last.
    values = params.getlist(name)
    if len(values) > 1:
        raise InvalidRef(f"{name} is given {len(values)} times.")
    if values and (len(values[0]) > _MAX_LENGTH or "\0" in values[0] or values[0] != utf8_safe(values[0])):
        raise InvalidRef(f"{name} is invalid.")
    return values[0] if values else ""


def _map_index(params: QueryParams) -> int:
    given = optional(params, "map_index")
    if given in _NOT_MAPPED or given == "-1":
        return -1
    if not re.fullmatch(r"[0-9]{1,9}", given):
        raise InvalidRef("map_index must be an integer of at least -1.")
    return int(given)
