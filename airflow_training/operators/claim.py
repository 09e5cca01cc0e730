"""What a task knows of its job across its tries: stored in Airflow's task state store before the submit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_training.api.naming import job_folder, job_id
from airflow_training.api.parameters import SAVED_MODEL
from airflow_training.client.client import TrainingClient
from airflow_training.client.retry import RetryPolicy
from airflow_training.following import stats
from airflow_training.hooks.training import TrainingHook

if TYPE_CHECKING:
    from airflow.sdk import Context

STATE_KEY = "training_job"
"""The claim of a task instance, in its state store."""


@dataclass(frozen=True)
class Claim:
    """A job that a task instance has claimed as its own.

    Attributes:
        job_id: Its id.
        job_number: Its number among the jobs of this task instance, from 1.
        max_tries: The task's `max_tries` at the claim. Airflow raises it when a user clears the task, not for a retry:
            at once, or for a running task when the scheduler notices that its process has ended.
        name: The job's name.
        training_conn_id: The connection to its service.
        version: The version of the job API, if it is not the connection's.
        completion_time: The time allotted to it, as the Dag has it.
        inputs: The names of the data in its folder: a model among them is not the one that it trained.
        code_files: The names of its other files before it ran: script, requirements and `source_dir`, unless these are
            very many.
        model: What it hands on, as its task had it at the claim.
        parameters: Its variables and arguments, without secrets.
        submitted: When the service accepted it, as ISO 8601; None as long as that is not known.
        over: Whether it can have no result any more.
    """

    job_id: str
    job_number: int
    max_tries: int
    name: str
    training_conn_id: str
    version: str | None
    completion_time: str | int
    inputs: Sequence[str] = ()
    code_files: Sequence[str] = ()
    model: str | None = SAVED_MODEL
    parameters: Mapping[str, Any] = field(default_factory=dict)
    submitted: str | None = None
    over: bool = False

    @property
    def folder(self) -> str:
        """The job's folder in the bucket."""
        return job_folder(self.name, self.job_id)

    def to_xcom(self) -> dict[str, Any]:
        """What a request for the job needs, and its inputs."""
        kept = ("job_id", "training_conn_id", "version", "name", "inputs")
        return {name: value for name, value in asdict(self).items() if name in kept} | {"inputs": list(self.inputs)}

    def accepted(self) -> Claim:
        """The claim once the service has accepted the job."""
        return replace(self, submitted=datetime.now(timezone.utc).isoformat())

    async def connect(self, policy: RetryPolicy | None = None) -> TrainingClient:
        """Make a client of the job's service."""
        return await TrainingHook(self.training_conn_id).connect(version=self.version, policy=policy, known=True)

    async def cancel(self) -> bool:
        """Cancel the job if it has not ended; return whether the service knows it."""
        async with await self.connect() as client:
            known = await client.cancel(self.job_id)
        if known:
            stats.canceled()
        return known


class ClaimStore:
    """The claim of one task instance.

    Args:
        context: The context that the task runs in.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def max_tries(self) -> int:
        """The task's current `max_tries`."""
        return int(self._context["ti"].max_tries)

    @property
    def map_index(self) -> int:
        """The index of a mapped task; -1 for others, as in Airflow."""
        map_index: int | None = self._context["ti"].map_index
        return -1 if map_index is None else map_index

    def job_id(self, job_number: int) -> str:
        """The id of a job of this task instance."""
        ti = self._context["ti"]
        return job_id(ti.dag_id, ti.run_id, ti.task_id, self.map_index, job_number)

    def read(self) -> Claim | None:
        """The claim of this try or of an earlier one."""
        stored: Any = self._context["task_state_store"].get(STATE_KEY)
        return Claim(**stored) if stored else None

    def write(self, claim: Claim) -> Claim:
        """Store a claim; it survives retries and clears."""
        self._context["task_state_store"].set(STATE_KEY, asdict(claim))
        return claim
